//! Ruslo's streaming operators: one operator, one file, its tests at the bottom.
//!
//! A planner describes an operator with its *spec* ([`ProjectSpec`], [`FilterSpec`], [`WindowAssignSpec`],
//! [`WindowAggregateSpec`]): it is checked when it is made, knows the schema that comes out, and ends in a factory for
//! `ruslo_core::graph::NodeKind::Operator`. [`RowTimeAssigner`] stands in a source node instead.
//!
//! Expressions are DataFusion's physical expressions, aggregates are DataFusion's too, but for SUM and AVG, whose
//! result types are Flink's: [`sum_udaf`], [`avg_udaf`].

mod aggregate;
mod deduplicate;
mod event_time;
mod expression;
mod filter;
pub mod function;
mod guard;
mod join;
mod last_rows;
mod late;
mod over;
mod pressure;
mod processing_time;
mod project;
mod row_number;
mod sort;
pub mod testing;
mod union;
mod unnest;
mod updating_aggregate;
mod updating_top_n;
mod upsert_materialize;
mod watermark;
mod window;

/// A state table whose columns follow from the plan: its name and these, as checkpoints have them.
pub type StateTable = (&'static str, arrow::datatypes::SchemaRef);

pub use aggregate::{avg_udaf, collecting_udafs, is_ordered, sum_udaf};
pub use deduplicate::{DeduplicateSpec, FirstBy};
pub use expression::{NamedExpr, execution_error};
pub use filter::FilterSpec;
pub use guard::guarded;
pub use join::as_of::{AsOf, AsOfJoinInput, AsOfJoinSpec};
pub use join::lookup::{LookupCache, LookupJoinKind, LookupJoinSpec, LookupOptions, Reload, WholeTable};
pub use join::regular::{RegularJoinInput, RegularJoinKind, RegularJoinSpec};
pub use join::timed::{TimedJoinInput, TimedJoinKind, TimedJoinSpec};
pub use last_rows::LastRowsSpec;
pub use late::{LateRowsSpec, LateRule};
pub use over::{OverCall, OverFrame, OverFunction, OverOrder, OverSpec};
pub use processing_time::ProcessingTimeColumns;
pub use project::ProjectSpec;
pub use row_number::row_number_udwf;
pub use sort::{EventTimeSortSpec, SortKey};
pub use union::UnionSpec;
pub use unnest::{UnnestOptions, UnnestSpec, element_fields};
pub use updating_aggregate::{LocalGroupBySpec, MiniBatch, UpdatingAggregateSpec, UpdatingChanges};
pub use updating_top_n::{Arrival, UpdatingTopN, UpdatingTopNSpec};
pub use upsert_materialize::UpsertMaterializeSpec;
pub use watermark::{RowTimeAssigner, WatermarkSpec};
pub use window::{
    AggregateCall, LocalAggregateSpec, SessionSpec, WINDOW_END, WINDOW_START, WINDOW_TIME, WindowAggregateSpec,
    WindowAssignSpec, WindowClock, WindowShape, WindowTopNSpec,
};
