//! Who calls [`crate::task::Task::step`]: threads, or a random generator.

pub mod seeded;
pub mod threads;
