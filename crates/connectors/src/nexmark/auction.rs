//! Auctions: `id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use ruslo_core::error::Result;
use ruslo_core::rng::Rng;

use super::event::{auction_id, duration_ms, fill, price, seller, time_ms, words};
use super::table::{Column, Rows, strings};
use crate::generate::stream::below;

const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: u64 = 5;
/// Bytes of an auction without the last column, on average, and of a whole one.
const OWN_BYTES: u64 = 110;
const ROW_BYTES: u64 = 500;

const INITIAL_BID: Column = Column { name: "initialBid", place: 3 };

/// One column of the auctions of `rows`.
pub(super) fn column(column: Column, rows: &Rows) -> Result<ArrayRef> {
    let streams = rows.streams(column);
    let numbers = |number: &dyn Fn(u64, &mut Rng) -> i64| {
        Int64Array::from_iter_values(rows.events().map(|event| number(event, &mut streams.of(event))))
    };
    let initial_bids = rows.streams(INITIAL_BID);
    Ok(match column.name {
        "id" => Arc::new(numbers(&|event, _| auction_id(event))),
        "initialBid" => Arc::new(numbers(&|_, rng| price(rng))),
        "reserve" => Arc::new(numbers(&|event, rng| price(&mut initial_bids.of(event)) + price(rng))),
        "expires" => {
            let ends = rows
                .events()
                .map(|event| time_ms(event, rows.rate).saturating_add(duration_ms(rows.rate, &mut streams.of(event))));
            Arc::new(TimestampMillisecondArray::from_iter_values(ends))
        }
        "seller" => Arc::new(numbers(&seller)),
        "category" => Arc::new(numbers(&|_, rng| FIRST_CATEGORY + below(rng, CATEGORIES) as i64)),
        text => {
            let (longest, blank) = if text == "itemName" { (20, b' ') } else { (100, b' ') };
            Arc::new(strings(rows, 64, |event, out| {
                let rng = &mut streams.of(event);
                if text == "extra" { fill(rng, OWN_BYTES, ROW_BYTES, out) } else { words(rng, longest, blank, out) }
            })?)
        }
    })
}
