//! What all events have in common: their order, their times, their ids, and the words they are made of.
//!
//! After the public definition of Nexmark (Tucker et al., *NEXMark – A Benchmark for Queries over Data Streams*, 2008)
//! with Apache Beam's proportions and hot keys: of 50 events one is a person, three are auctions, 46 are bids; every
//! second bid goes to the hot auction of the moment, three of four come from the hot bidder, three of four auctions
//! from the hot seller.

use ruslo_core::rng::Rng;

use crate::generate::stream::{below, letters, unit};

const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
pub(super) const BIDS: u64 = 46;
const EVENTS: u64 = PERSONS + AUCTIONS + BIDS;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
/// Bids may be for, and people may be named by, ids that come only a little later.
const LEAD: u64 = 10;
const ACTIVE_PERSONS: u64 = 1_000;
const IN_FLIGHT: u64 = 100;
const HOT_BATCH: u64 = 100;

/// 2026-01-01 00:00:00
const BEGIN_MS: u64 = 1_767_225_600_000;

/// Where the events of one kind stand among all events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    first: u64,
    count: u64,
}

impl Place {
    pub(super) const PERSON: Self = Self { first: 0, count: PERSONS };
    pub(super) const AUCTION: Self = Self { first: PERSONS, count: AUCTIONS };
    pub(super) const BID: Self = Self { first: PERSONS + AUCTIONS, count: BIDS };

    /// The number among all events of the `row`th of this kind.
    pub(super) fn event(self, row: u64) -> u64 {
        (row / self.count) * EVENTS + self.first + row % self.count
    }

    /// How many of the first `events` events are of this kind.
    pub(super) fn rows(self, events: u64) -> u64 {
        let rest = events % EVENTS;
        events / EVENTS * self.count + rest.saturating_sub(self.first).min(self.count)
    }
}

/// When an event happens, in milliseconds, at `rate` events a second.
pub(super) fn time_ms(event: u64, rate: u64) -> i64 {
    let rate = rate.max(1);
    let since = match event.checked_mul(1_000) {
        Some(thousandfold) => thousandfold / rate,
        // Dividing wide numbers takes many times as long.
        None => u64::try_from(u128::from(event) * 1_000 / u128::from(rate)).unwrap_or(u64::MAX),
    };
    i64::try_from(BEGIN_MS.saturating_add(since)).unwrap_or(i64::MAX)
}

fn last_person(event: u64) -> u64 {
    event / EVENTS
}

/// The last auction that was opened at an event, counted from 0.
fn last_auction(event: u64) -> u64 {
    Place::AUCTION.rows(event + 1).saturating_sub(1)
}

/// The id of the person of an event.
pub(super) fn person_id(event: u64) -> i64 {
    id(FIRST_PERSON + last_person(event))
}

/// The id of the auction of an event.
pub(super) fn auction_id(event: u64) -> i64 {
    id(FIRST_AUCTION + last_auction(event))
}

/// What a bid is for: every second time the hot auction of the moment.
pub(super) fn bid_auction(event: u64, rng: &mut Rng) -> i64 {
    let last = last_auction(event);
    if below(rng, 2) > 0 {
        return id(FIRST_AUCTION + last / HOT_BATCH * HOT_BATCH);
    }
    let first = last.saturating_sub(IN_FLIGHT);
    id(FIRST_AUCTION + first + below(rng, last - first + 1 + LEAD))
}

/// Who bids: three of four times the hot bidder of the moment.
pub(super) fn bidder(event: u64, rng: &mut Rng) -> i64 {
    let hot = last_person(event) / HOT_BATCH * HOT_BATCH + 1;
    id(FIRST_PERSON + if below(rng, 4) > 0 { hot } else { any_person(event, rng) })
}

/// Who sells: three of four times the hot seller of the moment.
pub(super) fn seller(event: u64, rng: &mut Rng) -> i64 {
    let hot = last_person(event) / HOT_BATCH * HOT_BATCH;
    id(FIRST_PERSON + if below(rng, 4) > 0 { hot } else { any_person(event, rng) })
}

fn any_person(event: u64, rng: &mut Rng) -> u64 {
    let persons = last_person(event) + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + below(rng, active + LEAD)
}

/// When an auction ends, in milliseconds after it began: about when the bids in flight are through.
pub(super) fn duration_ms(rate: u64, rng: &mut Rng) -> i64 {
    let horizon = IN_FLIGHT * EVENTS / AUCTIONS * 1_000 / rate.max(1);
    id(1 + below(rng, (horizon * 2).max(1)))
}

fn id(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A price in cents: its logarithm is evenly spread between 1 and 1,000,000.
pub(super) fn price(rng: &mut Rng) -> i64 {
    ((unit(rng) * (6.0 * std::f64::consts::LN_10)).exp() * 100.0).round() as i64
}

/// Appends 3 to `max` letters, every thirteenth of them `special`.
pub(super) fn words(rng: &mut Rng, max: u64, special: u8, out: &mut Vec<u8>) {
    let length = 3 + below(rng, max.saturating_sub(3));
    for place in 0..length {
        let inside = place > 0 && place + 1 < length;
        let letter = b'a' + below(rng, 26) as u8;
        out.push(if inside && below(rng, 13) == 0 { special } else { letter });
    }
}

/// Appends letters so that a row of `bytes` comes to `wanted` bytes, more or less by a fifth of what is missing.
pub(super) fn fill(rng: &mut Rng, bytes: u64, wanted: u64, out: &mut Vec<u8>) {
    let missing = wanted.saturating_sub(bytes);
    let spread = (missing as f64 * 0.2).round() as u64;
    let length = missing - spread + below(rng, 2 * spread);
    letters(rng, length as usize, out);
}

/// One of `all`.
pub(super) fn pick<'a>(rng: &mut Rng, all: &[&'a str]) -> &'a str {
    all.get(below(rng, all.len() as u64) as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::stream::Streams;

    #[test]
    fn of_fifty_events_one_is_a_person_three_are_auctions() {
        for events in [0, 1, 2, 4, 5, 49, 50, 51, 149, 10_000_000] {
            let kinds = [Place::PERSON, Place::AUCTION, Place::BID];
            assert_eq!(kinds.iter().map(|kind| kind.rows(events)).sum::<u64>(), events, "{events}");
            for kind in kinds.iter().filter(|kind| kind.rows(events) > 0) {
                let rows = kind.rows(events);
                assert!(kind.event(rows - 1) < events && kind.event(rows) >= events);
            }
        }
        assert_eq!(Place::BID.rows(10_000_000), 9_200_000);
    }

    #[test]
    fn ids_follow_their_events() {
        let auctions: Vec<i64> = (0..7).map(|row| auction_id(Place::AUCTION.event(row))).collect();
        assert_eq!(auctions, (1000..1007).collect::<Vec<_>>());
        let persons: Vec<i64> = (0..7).map(|row| person_id(Place::PERSON.event(row))).collect();
        assert_eq!(persons, (1000..1007).collect::<Vec<_>>());
        assert_eq!(time_ms(10_000, 10_000) - time_ms(0, 10_000), 1000);
    }

    #[test]
    fn half_of_the_bids_are_for_the_hot_auction_and_the_others_for_one_in_flight() {
        let streams = Streams::new(42, 0);
        let mut hot = 0;
        for row in 0..10_000 {
            let event = Place::BID.event(1_000_000 + row);
            let auction = bid_auction(event, &mut streams.of(event));
            let last = auction_id(event);
            hot += i32::from((auction - 1000) % 100 == 0);
            assert!((last - 200..=last + 10).contains(&auction), "{auction} at {last}");
        }
        assert!((4_900..5_200).contains(&hot), "{hot}");
    }

    #[test]
    fn prices_are_spread_over_six_powers_of_ten() {
        let streams = Streams::new(1, 0);
        let mut by_power = [0; 7];
        for row in 0..60_000 {
            let price = price(&mut streams.of(row));
            assert!((100..=100_000_000).contains(&price));
            by_power[(price as f64 / 100.0).log10() as usize] += 1;
        }
        assert!(by_power[..6].iter().all(|count| (9_500..10_500).contains(count)), "{by_power:?}");
    }

    #[test]
    fn words_neither_begin_nor_end_with_a_blank() {
        let streams = Streams::new(1, 0);
        for row in 0..1000 {
            let mut text = Vec::new();
            words(&mut streams.of(row), 20, b' ', &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.trim(), text);
            assert!((3..20).contains(&text.len()), "{text}");
        }
    }
}
