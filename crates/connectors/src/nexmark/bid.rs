//! Bids: `auction, bidder, price, channel, url, dateTime, extra`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, StringBuilder};
use ruslo_core::error::Result;
use ruslo_core::rng::Rng;

use super::event::{bid_auction, bidder, fill, price, words};
use super::table::{Column, Rows, strings};
use crate::generate::stream::{Streams, below};

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const COLD_CHANNELS: u64 = 10_000;
/// Bytes of a bid without its text, and of a whole one.
const OWN_BYTES: u64 = 32;
const ROW_BYTES: u64 = 100;

/// Which channel a bid came through, and its address.
#[derive(Debug)]
pub(super) struct Channels {
    names: Vec<String>,
    urls: Vec<String>,
}

impl Channels {
    /// None at all: where no column asks for one.
    pub(super) fn none() -> Self {
        Self { names: Vec::new(), urls: Vec::new() }
    }

    /// The channels of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let streams = Streams::new(seed, u64::MAX);
        let cold = (0..COLD_CHANNELS).map(|channel| format!("channel-{channel}"));
        let names: Vec<String> = HOT_CHANNELS.iter().map(|name| (*name).to_owned()).chain(cold).collect();
        let hot = HOT_CHANNELS.len() as u64;
        let urls = (0..names.len() as u64).map(|channel| url(&mut streams.of(channel), channel.checked_sub(hot)));
        Self { urls: urls.collect(), names }
    }

    /// Half of all bids come through the four hot channels.
    fn any(rng: &mut Rng) -> usize {
        let hot = HOT_CHANNELS.len() as u64;
        let channel = if below(rng, 2) > 0 { below(rng, hot) } else { hot + below(rng, COLD_CHANNELS) };
        channel as usize
    }

    fn column(texts: &[String], rows: &Rows, streams: Streams) -> ArrayRef {
        let texts = rows.events().map(|event| texts.get(Self::any(&mut streams.of(event))).map_or("", String::as_str));
        let mut column = StringBuilder::with_capacity(rows.len(), rows.len() * 48);
        texts.for_each(|text| column.append_value(text));
        Arc::new(column.finish())
    }
}

/// The address of a channel; nine of ten cold ones have its id in it.
fn url(rng: &mut Rng, cold: Option<u64>) -> String {
    let mut text = b"https://www.nexmark.com/".to_vec();
    for _ in 0..3 {
        words(rng, 5, b'_', &mut text);
        text.push(b'/');
    }
    text.extend_from_slice(b"item.htm?query=1");
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if let Some(cold) = cold.filter(|_| below(rng, 10) > 0) {
        text.push_str(&format!("&channel_id={}", (cold as u32).reverse_bits() >> 1));
    }
    text
}

/// One column of the bids of `rows`.
pub(super) fn column(column: Column, rows: &Rows, channels: &Channels) -> Result<ArrayRef> {
    let streams = rows.streams(column);
    let numbers = |number: fn(u64, &mut Rng) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.events().map(|event| number(event, &mut streams.of(event)))))
    };
    Ok(match column.name {
        "auction" => numbers(bid_auction),
        "bidder" => numbers(bidder),
        "price" => numbers(|_, rng| price(rng)),
        // Both from the stream of the channel, so that they belong together.
        "channel" => Channels::column(&channels.names, rows, rows.streams(CHANNEL)),
        "url" => Channels::column(&channels.urls, rows, rows.streams(CHANNEL)),
        _ => extra(rows, streams)?,
    })
}

const CHANNEL: Column = Column { name: "channel", place: 3 };

fn extra(rows: &Rows, streams: Streams) -> Result<ArrayRef> {
    let column: StringArray = strings(rows, (ROW_BYTES - OWN_BYTES) as usize, |event, out| {
        fill(&mut streams.of(event), OWN_BYTES, ROW_BYTES, out)
    })?;
    Ok(Arc::new(column))
}
