//! Persons: `id, name, emailAddress, creditCard, city, state, dateTime, extra`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use ruslo_core::error::Result;
use ruslo_core::rng::Rng;

use super::event::{fill, person_id, pick, words};
use super::table::{Column, Rows, strings};
use crate::generate::stream::below;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
/// Bytes of a person without the last column, on average, and of a whole one.
const OWN_BYTES: u64 = 60;
const ROW_BYTES: u64 = 200;

/// One column of the persons of `rows`.
pub(super) fn column(column: Column, rows: &Rows) -> Result<ArrayRef> {
    if column.name == "id" {
        return Ok(Arc::new(Int64Array::from_iter_values(rows.events().map(person_id))));
    }
    let streams = rows.streams(column);
    let text: fn(&mut Rng, &mut Vec<u8>) = match column.name {
        "name" => name,
        "emailAddress" => email,
        "creditCard" => card,
        "city" => |rng, out| out.extend_from_slice(pick(rng, &CITIES).as_bytes()),
        "state" => |rng, out| out.extend_from_slice(pick(rng, &STATES).as_bytes()),
        _ => |rng, out| fill(rng, OWN_BYTES, ROW_BYTES, out),
    };
    Ok(Arc::new(strings(rows, 24, |event, out| text(&mut streams.of(event), out))?))
}

fn name(rng: &mut Rng, out: &mut Vec<u8>) {
    out.extend_from_slice(pick(rng, &FIRST_NAMES).as_bytes());
    out.push(b' ');
    out.extend_from_slice(pick(rng, &LAST_NAMES).as_bytes());
}

fn email(rng: &mut Rng, out: &mut Vec<u8>) {
    words(rng, 7, b'_', out);
    out.push(b'@');
    words(rng, 5, b'_', out);
    out.extend_from_slice(b".com");
}

fn card(rng: &mut Rng, out: &mut Vec<u8>) {
    for group in 0..4 {
        if group > 0 {
            out.push(b' ');
        }
        out.extend((0..4).map(|_| b'0' + below(rng, 10) as u8));
    }
}
