//! RAND, RAND_INTEGER and UUID: another value for each row, from the world's seed.

use std::sync::PoisonError;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use ruslo_core::rng::Rng;

use super::call::Kind::Int;
use super::call::{Argument, Arguments, Definition, Gives, bad_value};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("rand", &[&[], &[Int]], Gives::Double, rand).volatile(),
    Definition::new("rand_integer", &[&[Int], &[Int, Int]], Gives::Int, rand_integer).volatile(),
    Definition::new("uuid", &[&[]], Gives::Text, uuid).volatile(),
];

/// Runs `with` on the generator: the one of the seed, if the call has a constant one.
fn with_generator<R>(args: &Arguments<'_>, seed: Option<usize>, with: impl FnOnce(&mut Rng) -> R) -> Result<R> {
    let mut chance = args.world.chance.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = seed.map(|place| args.int(place)).transpose()?;
    Ok(match seed {
        None => with(&mut chance.free),
        Some(Argument::Constant(Some(seed))) => {
            with(chance.seeded.entry(seed).or_insert_with(|| Rng::seeded(seed.unsigned_abs().into())))
        }
        Some(_) => return Err(bad_value("the seed of RAND must be a constant")),
    })
}

/// In 0 (inclusive) to 1 (exclusive).
fn rand(args: &Arguments<'_>) -> Result<ArrayRef> {
    let seed = (args.len() == 1).then_some(0);
    with_generator(args, seed, |rng| args.doubles(|_| Some((rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64)))?
}

/// In 0 (inclusive) to the bound (exclusive).
fn rand_integer(args: &Arguments<'_>) -> Result<ArrayRef> {
    let bounds = args.int(args.len() - 1)?;
    let seed = (args.len() == 2).then_some(0);
    with_generator(args, seed, |rng| {
        args.ints(|row| match bounds.get(row) {
            None => Ok(None),
            Some(bound @ 1..) => Ok(i32::try_from(rng.below(bound as usize)).ok()),
            Some(bound) => Err(bad_value(format!("RAND_INTEGER takes a bound from 1 on, not {bound}"))),
        })
    })?
}

/// A UUID of version 4.
fn uuid(args: &Arguments<'_>) -> Result<ArrayRef> {
    with_generator(args, None, |rng| {
        args.write_texts(|_, out| {
            let (high, low) = (rng.next_u64(), rng.next_u64());
            let (high, low) = (high & !0xf000 | 0x4000, low & !(3 << 62) | (2 << 62));
            let text = format_args!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                high >> 32,
                (high >> 16) & 0xffff,
                high & 0xffff,
                low >> 48,
                low & 0xffff_ffff_ffff
            );
            let _ = std::fmt::Write::write_fmt(out, text);
            Ok(Some(()))
        })
    })?
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int32Type};

    use super::super::testing::{call, int, refused, world};

    #[test]
    fn rows_differ_and_worlds_repeat() {
        let array = call("rand", &[]).unwrap();
        let values = array.as_primitive::<Float64Type>();
        assert_ne!(values.value(0), values.value(1));
        assert!(values.values().iter().all(|value| (0.0..1.0).contains(value)));
        assert_eq!(&array, &call("rand", &[]).unwrap());
        let one = super::super::testing::call_in(&world(), "rand_integer", &[int(10)]).unwrap();
        assert!(one.as_primitive::<Int32Type>().values().iter().all(|value| (0..10).contains(value)));
        assert_eq!(refused("rand_integer", &[int(0)]), "RAND_INTEGER takes a bound from 1 on, not 0");
    }

    #[test]
    fn a_uuid_looks_like_one() {
        let array = call("uuid", &[]).unwrap();
        let uuid = array.as_string::<i32>().value(0);
        let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }
}
