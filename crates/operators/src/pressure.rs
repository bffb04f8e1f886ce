//! What an operator does when memory gets short: it moves what it has gathered into state, and state moves onto disk.

use ruslo_core::error::Result;
use ruslo_core::operator::OperatorContext;

/// Of what an operator may hold, the part that it takes to fire at a time.
const FIRING_SHARE: u64 = 8;

/// An operator that holds part of its state itself.
pub(crate) trait Holding {
    /// Bytes that it holds, in tables or not.
    fn held_bytes(&self, ctx: &mut OperatorContext<'_>) -> usize;

    /// Moves what it can into tables.
    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()>;

    /// Notes what its tables hold after they have changed.
    fn look_again(&mut self, ctx: &mut OperatorContext<'_>);
}

/// Says what `operator` holds. Where that is too much, as much as can leaves memory before.
///
/// # Errors
/// `Resource`, if even the rest is too much; the disk's.
pub(crate) fn account(operator: &mut impl Holding, ctx: &mut OperatorContext<'_>) -> Result<()> {
    let bytes = operator.held_bytes(ctx) as u64;
    let before = ctx.memory.bytes();
    if bytes == before {
        return Ok(());
    }
    if !ctx.state.can_evict() || bytes < before || ctx.memory.may_hold(bytes) {
        return ctx.memory.resize(bytes);
    }
    operator.put_away(ctx)?;
    ctx.state.evict()?;
    operator.look_again(ctx);
    let left = operator.held_bytes(ctx) as u64;
    ctx.memory.resize(left)
}

/// How many bytes of state an operator may take at a time to make results of.
pub(crate) fn firing_bytes(ctx: &OperatorContext<'_>) -> u64 {
    if ctx.state.can_evict() { ctx.memory.limit_bytes() / FIRING_SHARE } else { u64::MAX }
}
