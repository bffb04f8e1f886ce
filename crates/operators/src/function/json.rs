use super::call::Definition;
pub(super) const FUNCTIONS: &[Definition] = &[];
