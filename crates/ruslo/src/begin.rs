//! Beginning a run from a savepoint, whose query may be another one's: what fits, and how it is carried over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::graph::{Graph, NodeKind, OperatorId};
use ruslo_core::metrics::RowCounts;
use ruslo_core::plan::CompiledPlan;
use ruslo_core::upgrade::{Becomes, Kept, Layout, Upgrade};
use ruslo_sql::Planned;
use ruslo_state::manifest::Manifest;
use ruslo_state::savepoint::{self, Rewrite, Savepoint};
use ruslo_state::store::{CheckpointStore, Restored};

/// Which savepoint a run begins from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromSavepoint {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether state that the query has no use for may be left behind.
    pub allow_dropped_state: bool,
}

/// A savepoint that fits a query.
pub(crate) struct Beginning {
    savepoint: Savepoint,
    rewrites: BTreeMap<OperatorId, Rewrite>,
    operators: BTreeSet<OperatorId>,
    fingerprint: String,
    plan: CompiledPlan,
    /// What its user should know.
    pub(crate) notices: Vec<String>,
}

/// What `planned` would keep.
///
/// # Errors
/// `Usage`, if it keeps nothing that could be gone on with.
pub(crate) fn kept_by(planned: &Planned) -> Result<Kept> {
    let Some(plan) = planned.compiled.clone() else {
        return Err(Error::usage("a batch job has no state to go on with: it does not begin from a savepoint"));
    };
    let sources = planned.graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Source(_)));
    Ok(Kept { sources: sources.map(|node| (node.id, node.name.clone())).collect(), plan })
}

/// What a savepoint keeps.
fn kept_in(savepoint: &Savepoint) -> Result<Kept> {
    let manifest = &savepoint.manifest;
    let Some(plan) = manifest.plan.clone() else {
        return Err(Error::usage(format!("{}: its job has no plan to go on with", savepoint.folder().display())));
    };
    let sources = manifest.operators.iter().filter(|(_, entry)| !entry.lineages.is_empty());
    Ok(Kept { sources: sources.map(|(id, entry)| (*id, entry.name.clone())).collect(), plan })
}

/// What becomes of the state in the savepoint `folder` under the query that is `planned`.
pub(crate) fn upgrade(disk: &Arc<dyn Disk>, folder: &Path, planned: &Planned) -> Result<(Savepoint, Upgrade)> {
    let savepoint = savepoint::open(Arc::clone(disk), folder)?;
    let upgrade = Upgrade::between(&kept_in(&savepoint)?, &kept_by(planned)?);
    let upgrade = upgrade.context(|| folder.display().to_string())?;
    Ok((savepoint, upgrade))
}

impl Beginning {
    /// Looks whether the savepoint fits the query.
    ///
    /// # Errors
    /// `Usage`, if there is no savepoint, or it does not fit, naming the operators.
    pub(crate) fn new(disk: &Arc<dyn Disk>, from: &FromSavepoint, planned: &Planned) -> Result<Self> {
        let (savepoint, upgrade) = upgrade(disk, &from.folder, planned)?;
        upgrade.check(from.allow_dropped_state).context(|| from.folder.display().to_string())?;
        let mut rewrites = BTreeMap::new();
        let mut notices = Vec::new();
        for fate in &upgrade.fates {
            notices.extend(fate.notes.iter().map(|note| format!("'{}': {note}", fate.name)));
            match &fate.becomes {
                Becomes::Keeps { layout: Some(layout) } => {
                    rewrites.insert(fate.id, rewrite(&planned.graph, fate.id, layout.clone())?);
                }
                Becomes::StartsEmpty => notices.push(format!("'{}' is new and begins empty", fate.name)),
                _ => {}
            }
        }
        let plan = kept_by(planned)?.plan;
        let operators = planned.graph.nodes.iter().map(|node| node.id).collect();
        Ok(Self { savepoint, rewrites, operators, fingerprint: planned.fingerprint.clone(), plan, notices })
    }

    /// Carries it over into `store`; what the run called `run` restores.
    pub(crate) fn begin(&self, store: &CheckpointStore, run: String) -> Result<Restored> {
        let changed = |mut manifest: Manifest| {
            manifest.operators.retain(|id, _| self.operators.contains(id));
            let subtasks = manifest.operators.values_mut().flat_map(|entry| &mut entry.subtasks);
            subtasks.for_each(|subtask| subtask.counts = RowCounts::default());
            let (fingerprint, plan) = (self.fingerprint.clone(), Some(self.plan.clone()));
            Manifest { run, fingerprint, plan, ..manifest }
        };
        self.savepoint.begin(store, changed, &self.rewrites)?;
        let restored = store.restore_newest()?;
        restored.ok_or_else(|| Error::internal("the savepoint was copied, and is not there"))
    }
}

/// What lays out the state of the operator `id` as `layout` says.
fn rewrite(graph: &Graph, id: OperatorId, layout: Layout) -> Result<Rewrite> {
    let node = graph.nodes.iter().find(|node| node.id == id);
    let fresh = match node.map(|node| &node.kind) {
        Some(NodeKind::Operator(factory)) => factory.fresh_state()?,
        _ => None,
    };
    let fresh = fresh.ok_or_else(|| Error::internal(format!("operator {id} cannot lay out its state anew")))?;
    Ok(Box::new(move |rows| laid_out(rows, &fresh, &layout)))
}

/// `rows` with the columns of `fresh` for those that it had of their kind; others stay where they are.
fn laid_out(rows: &RecordBatch, fresh: &RecordBatch, layout: &Layout) -> Result<RecordBatch> {
    let old = rows.schema_ref().fields();
    let Some(first) = old.iter().position(|field| is_of_plan(field.name())) else { return Ok(rows.clone()) };
    let mut columns: Vec<(Arc<Field>, ArrayRef)> = Vec::new();
    for (at, (field, column)) in old.iter().zip(rows.columns()).enumerate() {
        if at == first {
            for (field, value) in fresh.schema_ref().fields().iter().zip(fresh.columns()) {
                columns.push((Arc::clone(field), new_column(rows, field, value, layout)?));
            }
        }
        if !is_of_plan(field.name()) {
            columns.push((Arc::clone(field), Arc::clone(column)));
        }
    }
    let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Whether a column of state follows from the plan: `docs/design/window-state.md`.
fn is_of_plan(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_state = |text: &str| text.split_once('_').is_some_and(|(at, column)| is_number(at) && is_number(column));
    name == "present"
        || name.strip_prefix("key").is_some_and(is_number)
        || name.strip_prefix("aggregate").is_some_and(is_state)
}

fn new_column(rows: &RecordBatch, field: &Field, fresh: &ArrayRef, layout: &Layout) -> Result<ArrayRef> {
    match layout.get(field.name()) {
        Some(Some(old)) => {
            let column = rows.column_by_name(old);
            let column = column.ok_or_else(|| Error::corrupt(format!("a run has no column '{old}'")))?;
            Ok(cast(column, field.data_type())?)
        }
        // Every row gets the one value.
        _ => Ok(take(fresh, &UInt32Array::from(vec![0; rows.num_rows()]), None)?),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, UInt16Array};
    use arrow::datatypes::DataType;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn columns_are_renamed_widened_added_and_left_out_and_others_stay() {
        let rows = batch(vec![
            ("key0", Arc::new(Int32Array::from(vec![1, 2]))),
            ("aggregate0_0", Arc::new(Int64Array::from(vec![10, 20]))),
            ("aggregate1_0", Arc::new(Int64Array::from(vec![11, 21]))),
            ("from", Arc::new(Int64Array::from(vec![7, 7]))),
            ("__key_group", Arc::new(UInt16Array::from(vec![3, 4]))),
        ]);
        let fresh = batch(vec![
            ("key0", Arc::new(Int64Array::from(vec![None]))),
            ("aggregate0_0", Arc::new(Int64Array::from(vec![None]))),
            ("aggregate1_0", Arc::new(Int64Array::from(vec![0]))),
        ]);
        let layout = [("key0", Some("key0")), ("aggregate0_0", Some("aggregate1_0")), ("aggregate1_0", None)];
        let layout = layout.map(|(new, old)| (new.to_owned(), old.map(str::to_owned))).into();
        let expected = batch(vec![
            ("key0", Arc::new(Int64Array::from(vec![1, 2]))),
            ("aggregate0_0", Arc::new(Int64Array::from(vec![11, 21]))),
            ("aggregate1_0", Arc::new(Int64Array::from(vec![0, 0]))),
            ("from", Arc::new(Int64Array::from(vec![7, 7]))),
            ("__key_group", Arc::new(UInt16Array::from(vec![3, 4]))),
        ]);
        assert_eq!(laid_out(&rows, &fresh, &layout).unwrap(), expected);
    }

    #[test]
    fn a_table_without_columns_of_the_plan_stays_as_it_is() {
        let rows = batch(vec![("key_group", Arc::new(UInt16Array::from(vec![1])))]);
        let fresh = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("key0", DataType::Int64, true)])));
        assert_eq!(laid_out(&rows, &fresh, &Layout::new()).unwrap(), rows);
    }
}
