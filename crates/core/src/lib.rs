//! What flows through Ruslo and what it means. Start at [`element`], then [`operator`].
//!
//! | module | holds |
//! |---|---|
//! | [`element`], [`time`], [`epoch`] | what flows through an edge, and its grammar |
//! | [`schema`], [`changelog`], [`key_group`] | hidden columns; what a row of a changing table says; which subtask a row belongs to |
//! | [`operator`], [`source`], [`sink`], [`connector`], [`state`] | the traits that operators and connectors implement |
//! | [`io`], [`lookup`] | requests to the world outside, and tables that are asked by key |
//! | [`dead_letter`], [`sift`] | records that cannot become rows, and how they are found |
//! | [`graph`] | the physical graph: what the planner hands to the runtime |
//! | [`keyed`], [`timers`], [`operator_rows`] | state and timers by key, and rows that belong to no key |
//! | [`clock`], [`disk`], [`standard_input`], [`rng`], [`environment`] | the seams that a simulator replaces |
//! | [`memory`], [`metrics`], [`error`] | what is bounded, what is counted, what goes wrong |

pub mod changelog;
pub mod clock;
pub mod connector;
pub mod dead_letter;
pub mod disk;
pub mod element;
pub mod environment;
pub mod epoch;
pub mod equation;
pub mod error;
pub mod graph;
pub mod io;
pub mod key_group;
pub mod keyed;
pub mod lookup;
pub mod memory;
pub mod metrics;
pub mod operator;
pub mod operator_rows;
pub mod plan;
pub mod rng;
pub mod schema;
pub mod sift;
pub mod sink;
pub mod source;
pub mod standard_input;
pub mod state;
pub mod time;
pub mod timers;
pub mod upgrade;
