//! Panics as errors: one pipeline's bug is not the end of the others in its process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ruslo_core::error::{Error, Result};

/// What `work` comes to.
///
/// # Errors
/// Those of `work`; `Internal`, naming `name`, if it panics.
pub fn caught<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(name, panic.as_ref())))
}

/// The error of a panic.
pub(crate) fn panicked(name: &str, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!("'{name}' panicked: {}", text.unwrap_or("no message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_text() {
        let error = caught::<()>("task 3", || panic!("no row {}", 7)).unwrap_err();
        assert_eq!(error.to_string(), "internal error (please report it): 'task 3' panicked: no row 7");
        assert_eq!(caught("task 3", || Ok(1)), Ok(1));
    }
}
