//! Which rows a result is made of, and the steps by which an aggregate goes through the rows of a piece.

use std::ops::Range;

use arrow::buffer::ScalarBuffer;

/// What a frame ends with is the row itself; this is where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverFrame {
    /// With the first row of the key; each row sees those before it.
    RowsUnbounded,
    /// With the first row of the key; rows of one time see each other.
    RangeUnbounded,
    /// So many rows before.
    Rows(u64),
    /// With the rows whose time is so much less, in units of the time's column; rows of one time see each other.
    Range(i64),
}

impl OverFrame {
    /// Whether rows leave it.
    pub(super) fn is_bounded(self) -> bool {
        matches!(self, Self::Rows(_) | Self::Range(_))
    }

    /// Whether rows of one time have one frame.
    fn is_by_time(self) -> bool {
        matches!(self, Self::RangeUnbounded | Self::Range(_))
    }

    /// Where a row stands that this frame can be told by: its number within its key, or its time.
    pub(super) fn place(self, number: i64, time: i64) -> i64 {
        if self.is_by_time() { time } else { number }
    }

    /// The least place in the frame of a row at `place`.
    pub(super) fn begin(self, place: i64) -> i64 {
        match self {
            Self::RowsUnbounded | Self::RangeUnbounded => i64::MIN,
            Self::Rows(before) => place.saturating_sub(i64::try_from(before).unwrap_or(i64::MAX)),
            Self::Range(before) => place.saturating_sub(before),
        }
    }
}

/// What happens to an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// A row comes into the frame of its key.
    Enters,
    /// A row leaves it.
    Leaves,
    /// The result of a row, which has entered, is asked for.
    Results,
}

/// One step, of the key number `group`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) does: Does,
    pub(super) group: u32,
    /// The row: those that were kept before, as far as they leave, and then those of the piece.
    pub(super) row: u32,
}

/// The rows of a piece as one frame sees them.
#[derive(Debug)]
pub(super) struct Walk {
    /// In the order of the piece: results are asked for row by row.
    pub(super) steps: Vec<Step>,
    /// How many rows were kept before and leave: the piece's come behind them.
    pub(super) kept: usize,
    /// Where each row of the piece stands.
    pub(super) places: ScalarBuffer<i64>,
    /// The least place in the frame of each row of the piece.
    pub(super) begins: Vec<i64>,
    /// Which rows of the piece are in the frame at the end.
    pub(super) stays: Vec<bool>,
}

/// The rows of a piece: the key of each, its number within its key, its time.
pub(super) struct Arrived<'a> {
    pub(super) groups: &'a [u32],
    pub(super) numbers: &'a [i64],
    pub(super) times: &'a [i64],
    /// How many keys there are.
    pub(super) total: usize,
}

/// Rows that were kept before and leave, oldest of their key first.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub(super) groups: Vec<u32>,
    pub(super) places: Vec<i64>,
}

impl Walk {
    /// The steps of the rows `arrived` in frames like `frame`, which those of `leaving` leave.
    pub(super) fn new(frame: OverFrame, arrived: &Arrived<'_>, leaving: &Leaving) -> Self {
        let places: Vec<i64> =
            arrived.numbers.iter().zip(arrived.times).map(|(number, time)| frame.place(*number, *time)).collect();
        let begins: Vec<i64> = places.iter().map(|place| frame.begin(*place)).collect();
        let kept = leaving.groups.len();
        let mut queues = Queues::new(frame, arrived, leaving);
        let mut steps = Vec::with_capacity(2 * arrived.groups.len() + kept);
        let mut first = 0;
        while first < arrived.groups.len() {
            let block = block(frame, arrived.times, first);
            first = block.end;
            let rows = || block.clone().zip(arrived.groups.get(block.clone()).unwrap_or_default());
            for (row, group) in rows() {
                let begin = begins.get(row).copied().unwrap_or(i64::MIN);
                steps.push(Step { does: Does::Enters, group: *group, row: (kept + row) as u32 });
                queues.leave(*group, begin, (&leaving.places, &places), &mut steps);
            }
            steps.extend(rows().map(|(row, group)| Step {
                does: Does::Results,
                group: *group,
                row: (kept + row) as u32,
            }));
        }
        let stays = queues.stays(kept, places.len());
        Self { steps, kept, places: places.into(), begins, stays }
    }
}

/// The rows from `first` on that have their results together.
fn block(frame: OverFrame, times: &[i64], first: usize) -> Range<usize> {
    if !frame.is_by_time() {
        return first..first + 1;
    }
    let rest = times.get(first..).unwrap_or_default();
    let same = rest.iter().take_while(|time| rest.first() == Some(time)).count();
    first..first + same.max(1)
}

/// The rows of each key in the order in which they leave: one stretch a key.
struct Queues {
    rows: Vec<u32>,
    /// The next one that leaves.
    heads: Vec<usize>,
    ends: Vec<usize>,
    is_bounded: bool,
}

impl Queues {
    fn new(frame: OverFrame, arrived: &Arrived<'_>, leaving: &Leaving) -> Self {
        let is_bounded = frame.is_bounded();
        if !is_bounded {
            return Self { rows: Vec::new(), heads: Vec::new(), ends: Vec::new(), is_bounded };
        }
        let all = || leaving.groups.iter().chain(arrived.groups);
        let mut counts = vec![0usize; arrived.total];
        all().for_each(|group| counts.get_mut(*group as usize).into_iter().for_each(|count| *count += 1));
        let mut heads = Vec::with_capacity(counts.len());
        let mut next = 0;
        for count in &counts {
            heads.push(next);
            next += count;
        }
        let (mut ends, mut rows) = (heads.clone(), vec![0u32; next]);
        for (row, group) in all().enumerate() {
            let Some(end) = ends.get_mut(*group as usize) else { continue };
            rows.get_mut(*end).into_iter().for_each(|slot| *slot = row as u32);
            *end += 1;
        }
        Self { rows, heads, ends, is_bounded }
    }

    /// The steps of those rows of `group` that stand before `begin`.
    fn leave(&mut self, group: u32, begin: i64, (kept, new): (&[i64], &[i64]), steps: &mut Vec<Step>) {
        if !self.is_bounded {
            return;
        }
        let (Some(head), Some(end)) = (self.heads.get_mut(group as usize), self.ends.get(group as usize)) else {
            return;
        };
        while *head < *end {
            let Some(row) = self.rows.get(*head).copied() else { return };
            let at = row as usize;
            let place = kept.get(at).or_else(|| new.get(at - kept.len())).copied();
            if place.is_none_or(|place| place >= begin) {
                return;
            }
            steps.push(Step { does: Does::Leaves, group, row });
            *head += 1;
        }
    }

    /// Which of the `new` rows behind the `kept` ones have not left.
    fn stays(&self, kept: usize, new: usize) -> Vec<bool> {
        let mut stays = vec![false; new];
        for (head, end) in self.heads.iter().zip(&self.ends) {
            for row in self.rows.get(*head..*end).unwrap_or_default() {
                let slot = (*row as usize).checked_sub(kept).and_then(|row| stays.get_mut(row));
                slot.into_iter().for_each(|stays| *stays = true);
            }
        }
        stays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(walk: &Walk) -> String {
        let step = |step: &Step| {
            let sign = match step.does {
                Does::Enters => '+',
                Does::Leaves => '-',
                Does::Results => '=',
            };
            format!("{sign}{}", step.row)
        };
        walk.steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rows_before_leave_one_by_one() {
        let arrived = Arrived { groups: &[0, 0, 1, 0], numbers: &[5, 6, 0, 7], times: &[1, 1, 1, 1], total: 2 };
        let leaving = Leaving { groups: vec![0, 0], places: vec![3, 4] };
        let walk = Walk::new(OverFrame::Rows(1), &arrived, &leaving);
        assert_eq!(text(&walk), "+2 -0 =2 +3 -1 =3 +4 =4 +5 -2 =5");
        assert_eq!(walk.stays, [false, true, true, true]);
    }

    #[test]
    fn rows_of_one_time_see_each_other() {
        let arrived = Arrived { groups: &[0, 1, 0, 0], numbers: &[1, 0, 2, 3], times: &[10, 10, 10, 25], total: 2 };
        let leaving = Leaving { groups: vec![0], places: vec![3] };
        let walk = Walk::new(OverFrame::Range(5), &arrived, &leaving);
        assert_eq!(text(&walk), "+1 -0 +2 +3 =1 =2 =3 +4 -1 -3 =4");
        assert_eq!(walk.stays, [false, true, false, true]);
        let walk = Walk::new(OverFrame::RangeUnbounded, &arrived, &Leaving::default());
        assert_eq!(text(&walk), "+0 +1 +2 =0 =1 =2 +3 =3");
    }
}
