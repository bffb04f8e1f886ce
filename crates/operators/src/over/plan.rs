//! How each call of an OVER is computed, and which columns and tables are kept for it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::OperatorContext;

use super::best::{Lists, Which, lagged, running};
use super::frame::{Arrived, Leaving, OverFrame, Walk};
use super::kept::{Kept, Left};
use super::totals::Totals;
use crate::aggregate::{Function, is_exact};
use crate::expression::{evaluate, execution_error};
use crate::updating_aggregate::canonical;

/// The names of the tables of frames, stored in checkpoints.
const ROWS: [&str; 8] =
    ["over_rows0", "over_rows1", "over_rows2", "over_rows3", "over_rows4", "over_rows5", "over_rows6", "over_rows7"];

/// The names of the tables of lists, stored in checkpoints.
const LISTS: [&str; 16] = [
    "over_values0",
    "over_values1",
    "over_values2",
    "over_values3",
    "over_values4",
    "over_values5",
    "over_values6",
    "over_values7",
    "over_values8",
    "over_values9",
    "over_values10",
    "over_values11",
    "over_values12",
    "over_values13",
    "over_values14",
    "over_values15",
];

/// A function over the frame of a row.
#[derive(Debug, Clone)]
pub enum OverFunction {
    /// The number of the row within its key, from 1.
    RowNumber,
    /// Rows, or values that are not NULL.
    Count,
    /// The sum, of the argument's type.
    Sum,
    /// The average, of the argument's type.
    Avg,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// The first value that is not NULL.
    FirstValue,
    /// The last value that is not NULL.
    LastValue,
    /// The value of the row so many rows before, at least 1, whatever the frame is; where there is none, the default of the
    /// row that asks.
    Lag(u64, Option<Arc<dyn PhysicalExpr>>),
}

/// A function call over a frame.
#[derive(Debug, Clone)]
pub struct OverCall {
    /// What is computed.
    pub function: OverFunction,
    /// Of what.
    pub argument: Option<Arc<dyn PhysicalExpr>>,
    /// Over which rows.
    pub frame: OverFrame,
    /// The column that comes out.
    pub field: FieldRef,
}

/// What a call is computed from.
#[derive(Debug)]
enum Means {
    Number,
    Totals(Totals),
    /// State: the value.
    Running(Which),
    Lists(Lists),
    Lag(Option<Arc<dyn PhysicalExpr>>),
}

#[derive(Debug)]
struct Call {
    means: Means,
    /// By their places.
    frame: usize,
    argument: Option<usize>,
    /// How many state columns it has.
    columns: usize,
}

/// All that is computed and kept.
#[derive(Debug)]
pub(super) struct Plan {
    calls: Vec<Call>,
    arguments: Vec<(Arc<dyn PhysicalExpr>, DataType)>,
    frames: Vec<(OverFrame, Option<Kept>)>,
    /// The state columns of all calls.
    pub(super) state: Vec<FieldRef>,
}

/// The rows of a piece with their keys.
pub(super) struct Rows<'a> {
    pub(super) batch: &'a RecordBatch,
    pub(super) arrived: Arrived<'a>,
    /// The key of each group.
    pub(super) keys: &'a [ArrayRef],
}

impl Plan {
    /// The plan of `calls` over rows of `input` by `key`.
    ///
    /// # Errors
    /// `Usage`, if an argument's type does not fit, or there are too many frames.
    pub(super) fn new(calls: &[OverCall], input: &Schema, key: &[FieldRef]) -> Result<Self> {
        let (arguments, frames, state) = Default::default();
        let mut plan = Self { calls: Vec::new(), arguments, frames, state };
        let mut kept: Vec<(usize, Option<usize>)> = Vec::new();
        for call in calls {
            let argument = call.argument.as_ref().filter(|expr| !is_one(call, expr));
            let argument = argument.map(|expr| plan.argument(expr, input)).transpose()?;
            let frame = plan.frame(frame_of(call));
            let means = plan.means(call, argument, key)?;
            if matches!(means, Means::Totals(_) | Means::Lag(_)) && frame_of(call).is_bounded() {
                kept.push((frame, argument));
            }
            plan.add(Call { means, frame, argument, columns: 0 });
        }
        plan.keep(&kept, key)?;
        Ok(plan)
    }

    fn add(&mut self, call: Call) {
        let types = match (&call.means, call.argument.and_then(|argument| self.arguments.get(argument))) {
            (Means::Totals(totals), _) => totals.state().into_iter().map(|data_type| (data_type, false)).collect(),
            (Means::Running(_), Some((_, data_type))) => vec![(data_type.clone(), true)],
            _ => Vec::new(),
        };
        let at = self.calls.len();
        self.calls.push(Call { columns: types.len(), ..call });
        let fields = types.into_iter().enumerate().map(|(column, (data_type, is_nullable))| {
            Arc::new(Field::new(format!("call{at}_{column}"), data_type, is_nullable))
        });
        self.state.extend(fields);
    }

    /// The place of an argument: a new one is added.
    fn argument(&mut self, expr: &Arc<dyn PhysicalExpr>, input: &Schema) -> Result<usize> {
        if let Some(place) = self.arguments.iter().position(|(known, _)| known.eq(expr)) {
            return Ok(place);
        }
        let data_type = expr.data_type(input).map_err(execution_error)?;
        self.arguments.push((Arc::clone(expr), data_type));
        Ok(self.arguments.len() - 1)
    }

    /// The place of a frame: a new one is added.
    fn frame(&mut self, frame: OverFrame) -> usize {
        self.frames.iter().position(|(known, _)| *known == frame).unwrap_or_else(|| {
            self.frames.push((frame, None));
            self.frames.len() - 1
        })
    }

    fn means(&self, call: &OverCall, argument: Option<usize>, key: &[FieldRef]) -> Result<Means> {
        let of_type = argument.and_then(|place| self.arguments.get(place)).map(|(_, data_type)| data_type.clone());
        let best = |which: Which| -> Result<Means> {
            if !call.frame.is_bounded() {
                return Ok(Means::Running(which));
            }
            let lists = self.calls.iter().filter(|call| matches!(call.means, Means::Lists(_))).count();
            let name =
                LISTS.get(lists).copied().ok_or_else(|| too_many("MIN, MAX, FIRST_VALUE and LAST_VALUE calls"))?;
            let value = of_type.clone().ok_or_else(|| Error::internal("a choice of a value without an argument"))?;
            Ok(Means::Lists(Lists::new(which, name, key.to_vec(), value)))
        };
        let sum = |function: Function| match of_type.clone() {
            None => Err(Error::internal("a sum without an argument")),
            Some(argument) if is_exact(&argument) => Ok(Means::Totals(Totals::Exact(function, argument))),
            Some(argument) => Ok(Means::Totals(Totals::Float(function, argument))),
        };
        match &call.function {
            OverFunction::RowNumber => Ok(Means::Number),
            OverFunction::Count => Ok(Means::Totals(Totals::Count)),
            OverFunction::Sum => sum(Function::Sum),
            OverFunction::Avg => sum(Function::Avg),
            OverFunction::Min => best(Which::Least),
            OverFunction::Max => best(Which::Greatest),
            OverFunction::FirstValue => best(Which::First),
            OverFunction::LastValue => best(Which::Last),
            OverFunction::Lag(_, default) => Ok(Means::Lag(default.clone())),
        }
    }

    /// Gives each frame whose rows are asked for a table.
    fn keep(&mut self, kept: &[(usize, Option<usize>)], key: &[FieldRef]) -> Result<()> {
        let mut names = ROWS.iter().copied();
        for (place, (_, table)) in self.frames.iter_mut().enumerate() {
            let of_frame = || kept.iter().filter(|(frame, _)| *frame == place);
            if of_frame().next().is_none() {
                continue;
            }
            let mut arguments: Vec<usize> = of_frame().filter_map(|(_, argument)| *argument).collect();
            arguments.sort_unstable();
            arguments.dedup();
            let types = arguments.iter().filter_map(|argument| self.arguments.get(*argument));
            let types = types.map(|(_, data_type)| data_type.clone()).collect();
            let name = names.next().ok_or_else(|| too_many("frames"))?;
            *table = Some(Kept::new(name, key.to_vec(), arguments, types));
        }
        Ok(())
    }

    /// The frames.
    pub(super) fn frames(&self) -> impl Iterator<Item = OverFrame> {
        self.frames.iter().map(|(frame, _)| *frame)
    }

    /// Frames with a table of their rows.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.frames.iter().filter_map(|(_, kept)| kept.as_ref())
    }

    /// Calls with a table of their own.
    pub(super) fn lists(&self) -> impl Iterator<Item = &Lists> {
        self.calls.iter().filter_map(|call| match &call.means {
            Means::Lists(lists) => Some(lists),
            _ => None,
        })
    }

    /// The results of all calls for `rows`, and the states of their groups after them; `states` are those before.
    pub(super) fn walk(
        &self,
        rows: &Rows<'_>,
        states: &[ArrayRef],
        ctx: &mut OperatorContext<'_>,
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let values = self.arguments.iter().map(|(expr, _)| evaluate(expr, rows.batch)).collect::<Result<Vec<_>>>()?;
        let walks = self.frames.iter().map(|(frame, kept)| walked(*frame, kept.as_ref(), rows, ctx));
        let walks = walks.collect::<Result<Vec<_>>>()?;
        let (mut results, mut after, mut rest) = (Vec::new(), Vec::new(), states);
        for call in &self.calls {
            let lost = || Error::internal("a key has fewer state columns than its calls");
            let (own, others) = rest.split_at_checked(call.columns).ok_or_else(lost)?;
            let (walk, left) = walks.get(call.frame).ok_or_else(|| Error::internal("a call lost its frame"))?;
            let kept = self.frames.get(call.frame).and_then(|(_, kept)| kept.as_ref());
            let values = match (call.argument.and_then(|place| Some((place, values.get(place)?))), left, kept) {
                (Some((place, values)), Some(left), Some(kept)) => Some((left.with(kept, place, values)?, values)),
                (Some((_, values)), ..) => Some((Arc::clone(values), values)),
                (None, ..) => None,
            };
            let (states, result) = call.walk(own, walk, values, rows, ctx)?;
            results.push(result);
            after.extend(states);
            rest = others;
        }
        for ((walk, left), (_, kept)) in walks.into_iter().zip(&self.frames) {
            if let (Some(left), Some(kept)) = (left, kept) {
                let table = ctx.state.keyed(kept.name, &kept.table)?;
                kept.write(table, left, &walk, (rows.keys, rows.arrived.groups), &values)?;
            }
        }
        Ok((results, after))
    }
}

/// The steps of one frame, and what leaves its table.
fn walked(
    frame: OverFrame,
    kept: Option<&Kept>,
    rows: &Rows<'_>,
    ctx: &mut OperatorContext<'_>,
) -> Result<(Walk, Option<Left>)> {
    let Some(kept) = kept else { return Ok((Walk::new(frame, &rows.arrived, &Leaving::default()), None)) };
    let mut begins = vec![i64::MIN; rows.arrived.total];
    let places = rows.arrived.numbers.iter().zip(rows.arrived.times);
    for (group, (number, time)) in rows.arrived.groups.iter().zip(places) {
        let begin = begins.get_mut(*group as usize);
        begin.into_iter().for_each(|begin| *begin = frame.begin(frame.place(*number, *time)).max(*begin));
    }
    let table = ctx.state.keyed(kept.name, &kept.table)?;
    let left = kept.leaving(table, rows.keys, &begins, ctx.batch_rows)?;
    Ok((Walk::new(frame, &rows.arrived, &left.leaving), Some(left)))
}

impl Call {
    /// The states of the groups after `walk`, and the result of each row. `values` are the arguments of the rows of the
    /// walk, and of those that are new alone.
    fn walk(
        &self,
        states: &[ArrayRef],
        walk: &Walk,
        values: Option<(ArrayRef, &ArrayRef)>,
        rows: &Rows<'_>,
        ctx: &mut OperatorContext<'_>,
    ) -> Result<(Vec<ArrayRef>, ArrayRef)> {
        let lost = || Error::internal("an OVER call lost its argument");
        match &self.means {
            Means::Number => {
                let numbers = rows.arrived.numbers.iter().map(|number| number + 1);
                Ok((Vec::new(), Arc::new(Int64Array::from_iter_values(numbers))))
            }
            Means::Totals(totals) => {
                totals.walk(states, walk, values.as_ref().map(|(values, _)| values)).map_err(execution_error)
            }
            Means::Running(which) => {
                let (Some((values, _)), [state]) = (values, states) else { return Err(lost()) };
                let (state, result) = running(*which, state, walk, &canonical(&values))?;
                Ok((vec![state], result))
            }
            Means::Lists(lists) => {
                let (_, values) = values.ok_or_else(lost)?;
                let table = ctx.state.keyed(lists.name, &lists.table)?;
                let of_rows = (rows.arrived.groups, &canonical(values));
                Ok((Vec::new(), lists.walk(table, rows.keys, walk, of_rows, ctx.batch_rows)?))
            }
            Means::Lag(default) => {
                let (values, _) = values.ok_or_else(lost)?;
                let default = match default {
                    Some(default) => evaluate(default, rows.batch)?,
                    None => new_null_array(values.data_type(), rows.batch.num_rows()),
                };
                Ok((Vec::new(), lagged(walk, &values, &default)?))
            }
        }
    }
}

/// The frame that a call needs: LAG has one of its own.
fn frame_of(call: &OverCall) -> OverFrame {
    match call.function {
        OverFunction::Lag(before, _) => OverFrame::Rows(before.saturating_sub(1)),
        OverFunction::RowNumber => OverFrame::RowsUnbounded,
        _ => call.frame,
    }
}

/// Whether `expr` is COUNT's argument that is never NULL.
fn is_one(call: &OverCall, expr: &Arc<dyn PhysicalExpr>) -> bool {
    let is_constant = expr.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null());
    matches!(call.function, OverFunction::Count) && is_constant
}

fn too_many(what: &str) -> Error {
    Error::usage(format!("one OVER has too many {what}; use two queries, one over the other"))
}
