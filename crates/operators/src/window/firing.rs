//! Firing.
