//! Arrays, maps and rows in queries: what sqlparser does not read becomes what it reads.
//!
//! | text | for the parser | for the planner |
//! |---|---|---|
//! | `CAST(x AS MAP<STRING, INT>)` | the type's text as a name in backticks | [`crate::types`] reads the name |
//! | `MAP['a', 1, 'b', 2]` | `` `$map`('a', 1, 'b', 2) `` | `map(make_array('a', 'b'), make_array(1, 2))` |
//! | `ROW(a, b)` | as it stands | `` named_struct('EXPR$0', a, 'EXPR$1', b) `` |
//!
//! DataFusion casts rows by the names of their fields, SQL by their places: [`fix_cast`] renames them first.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, make_array};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue};
use datafusion::functions_nested::expr_fn::{array_element, map_extract};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, GetFieldAccess, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::cursor::{self, Cursor};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::carried;
use crate::types::{self, key_and_value, sql_name};

/// What stands for `MAP[..]` until it is planned.
const MAP_LITERAL: &str = "$map";

/// Whether the function `name` is one of this module's, in any case.
pub(crate) fn is_literal(name: &str) -> bool {
    name == MAP_LITERAL || name.eq_ignore_ascii_case("row")
}

/// `tokens` without nested types and map literals that sqlparser could not read.
pub(crate) fn rewrite_tokens(tokens: &[TokenWithSpan], end: Position) -> Sql<Vec<TokenWithSpan>> {
    let mut cursor = Cursor::new(tokens, end);
    let mut made = Vec::with_capacity(tokens.len());
    // For each open square bracket, whether it is a map's.
    let mut brackets = Vec::new();
    while let Some(token) = cursor.advance() {
        let is_as = cursor::is_keyword(&token.token, "AS");
        let is_map = cursor::is_keyword(&token.token, "MAP") && cursor.peek(0) == Some(&Token::LBracket);
        match token.token {
            _ if is_map => {
                made.push(word(MAP_LITERAL, token));
                made.extend(cursor.advance().map(|bracket| TokenWithSpan { token: Token::LParen, ..bracket.clone() }));
                brackets.push(true);
            }
            Token::LBracket => {
                brackets.push(false);
                made.push(token.clone());
            }
            Token::RBracket if brackets.pop() == Some(true) => {
                made.push(TokenWithSpan { token: Token::RParen, ..token.clone() });
            }
            _ => made.push(token.clone()),
        }
        if is_as && types::begins_nested(&cursor) {
            let first = cursor.rest().first();
            let data_type = types::parse(&mut cursor)?;
            made.extend(first.map(|first| word(&sql_name(&data_type), first)));
        }
    }
    Ok(made)
}

fn word(text: &str, at: &TokenWithSpan) -> TokenWithSpan {
    let keyword = datafusion::sql::sqlparser::keywords::Keyword::NoKeyword;
    let word = Word { value: text.to_owned(), quote_style: Some('`'), keyword };
    TokenWithSpan { token: Token::Word(word), span: at.span }
}

/// Gives the literals of maps and rows in `node` to functions of DataFusion's.
pub(crate) fn rewrite(node: &mut impl VisitMut) -> Sql<()> {
    match node.visit(&mut Literals) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Literals;

impl VisitorMut for Literals {
    type Break = SqlError;

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<SqlError> {
        let ast::Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = match function.name.0.as_slice() {
            [name] => name.as_ident().map(|name| name.value.clone()).unwrap_or_default(),
            _ => return ControlFlow::Continue(()),
        };
        if !is_literal(&name) {
            return ControlFlow::Continue(());
        }
        let at = Position::of_span(ast::Spanned::span(&function.name));
        let FunctionArguments::List(list) = &mut function.args else { return ControlFlow::Continue(()) };
        let args = std::mem::take(&mut list.args);
        let (name, made) = match if name == MAP_LITERAL { map_arguments(args) } else { row_arguments(args) } {
            Ok(made) => made,
            Err(error) => return ControlFlow::Break(error.at(at)),
        };
        function.name = ObjectName::from(vec![Ident::new(name)]);
        list.args = made;
        ControlFlow::Continue(())
    }
}

type Call = (&'static str, Vec<FunctionArg>);

fn map_arguments(args: Vec<FunctionArg>) -> Sql<Call> {
    if args.is_empty() || !args.len().is_multiple_of(2) {
        return Err(SqlError::new("a map is made of keys and values in turn, as in MAP['a', 1, 'b', 2]"));
    }
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for (place, arg) in args.into_iter().enumerate() {
        if place % 2 == 0 { keys.push(arg) } else { values.push(arg) }
    }
    Ok(("map", vec![array(keys), array(values)]))
}

fn array(args: Vec<FunctionArg>) -> FunctionArg {
    let elem = args.into_iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    argument(ast::Expr::Array(ast::Array { elem: elem.collect(), named: true }))
}

fn row_arguments(args: Vec<FunctionArg>) -> Sql<Call> {
    if args.is_empty() {
        return Err(SqlError::new("a row has one field at least, as in ROW(1, 'a')"));
    }
    let named = args.into_iter().enumerate().flat_map(|(place, arg)| {
        let name = Value::SingleQuotedString(format!("EXPR${place}"));
        [argument(ast::Expr::Value(name.into())), arg]
    });
    Ok(("named_struct", named.collect()))
}

fn argument(expr: ast::Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// `m[k]` of a map, whatever `k` is; DataFusion's own planner takes constants alone.
#[derive(Debug)]
pub(crate) struct MapAccess;

impl ExprPlanner for MapAccess {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> DfResult<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = access;
        match field_access {
            GetFieldAccess::ListIndex { key } if matches!(expr.get_type(schema)?, DataType::Map(..)) => {
                let found = map_extract(expr, *key);
                Ok(PlannerResult::Planned(array_element(found, lit(1_i64))))
            }
            field_access => Ok(PlannerResult::Original(RawFieldAccessExpr { field_access, expr })),
        }
    }
}

/// `expr` with every cast as [`fix_cast`] makes it.
pub(crate) fn fix_casts(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    expr.transform_up(|expr| fix_cast(expr, schema).map(Transformed::yes)).map(|expr| expr.data)
}

/// A cast to a row's type with its fields renamed first; anything else as it is.
///
/// # Errors
/// A sentence, if the rows have different numbers of fields.
pub(crate) fn fix_cast(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let (inner, to) = match &expr {
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        _ => return Ok(expr),
    };
    if !to.is_nested() {
        return Ok(expr);
    }
    let from = inner.get_type(schema)?;
    let renamed = renamed(&from, to).map_err(carried)?;
    if renamed == from {
        return Ok(expr);
    }
    let renamed = |inner: Expr| renamed_fields(inner, renamed.clone());
    Ok(match expr {
        Expr::Cast(mut cast) => {
            *cast.expr = renamed(*cast.expr);
            Expr::Cast(cast)
        }
        Expr::TryCast(mut cast) => {
            *cast.expr = renamed(*cast.expr);
            Expr::TryCast(cast)
        }
        other => other,
    })
}

fn renamed_fields(expr: Expr, to: DataType) -> Expr {
    let function = RenamedFields { to, signature: Signature::any(1, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::from(function)), vec![expr]))
}

/// `from` with the fields' names of `to`, place by place.
fn renamed(from: &DataType, to: &DataType) -> Sql<DataType> {
    let field = |from: &Field, to: &Field, name: &str| {
        Ok(Field::new(name, renamed(from.data_type(), to.data_type())?, from.is_nullable()))
    };
    Ok(match (from, to) {
        (DataType::Struct(old), DataType::Struct(new)) => {
            if old.len() != new.len() {
                let sentence =
                    format!("{} has {} fields, {} has {}", sql_name(from), old.len(), sql_name(to), new.len());
                return Err(SqlError::new(sentence).help("rows are cast field by field"));
            }
            let fields = old.iter().zip(new).map(|(old, new)| field(old, new, new.name()));
            DataType::Struct(fields.collect::<Sql<Fields>>()?)
        }
        (DataType::List(old), DataType::List(new)) => DataType::List(Arc::new(field(old, new, old.name())?)),
        (DataType::Map(old, sorted), DataType::Map(new, _)) => match (old.data_type(), new.data_type()) {
            (DataType::Struct(fields), DataType::Struct(_)) => {
                let (Some((_, value)), Some((_, to))) = (key_and_value(old), key_and_value(new)) else {
                    return Ok(from.clone());
                };
                let value = renamed(value, to)?;
                let typed = fields.iter().enumerate().map(|(place, field)| match place {
                    0 => field.as_ref().clone(),
                    _ => field.as_ref().clone().with_data_type(value.clone()),
                });
                let entries = DataType::Struct(typed.collect());
                DataType::Map(Arc::new(old.as_ref().clone().with_data_type(entries)), *sorted)
            }
            _ => from.clone(),
        },
        _ => from.clone(),
    })
}

/// The same values with other names for the fields of rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RenamedFields {
    to: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for RenamedFields {
    fn name(&self) -> &str {
        "renamed_fields"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return datafusion::common::internal_err!("renamed_fields takes one value");
        };
        match value {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(relabelled(array, &self.to)?)),
            ColumnarValue::Scalar(scalar) => {
                let array = relabelled(&scalar.to_array()?, &self.to)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

/// `array` under the type `to`, which differs only in names.
fn relabelled(array: &ArrayRef, to: &DataType) -> DfResult<ArrayRef> {
    let data = array.to_data();
    let types: Vec<DataType> = match to {
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type().clone()).collect(),
        DataType::List(field) | DataType::Map(field, _) => vec![field.data_type().clone()],
        _ => return Ok(array.clone()),
    };
    let children = data.child_data().iter().zip(&types);
    let children = children.map(|(child, to)| relabelled(&make_array(child.clone()), to).map(|child| child.to_data()));
    let children = children.collect::<DfResult<Vec<_>>>()?;
    Ok(make_array(data.into_builder().data_type(to.clone()).child_data(children).build()?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray, StructArray};

    use super::*;
    use crate::script::split;

    fn rewritten(text: &str) -> Sql<String> {
        let statement = split(text).unwrap().remove(0);
        let tokens = rewrite_tokens(&statement.tokens, statement.end)?;
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn types_and_maps_become_what_the_parser_reads() {
        let cases = [
            ("SELECT CAST(a AS ARRAY<MAP<INT, INT>>)", "SELECT CAST ( a AS `ARRAY<MAP<INT, INT>>` )"),
            ("SELECT CAST(a AS ROW(b INT)) AS row", "SELECT CAST ( a AS `ROW<b INT>` ) AS row"),
            ("SELECT MAP['a', b[1]] AS map", "SELECT `$map` ( 'a' , b [ 1 ] ) AS map"),
            ("SELECT a AS array, map FROM t", "SELECT a AS array , map FROM t"),
        ];
        for (text, expected) in cases {
            assert_eq!(rewritten(text).unwrap(), expected, "{text}");
        }
        assert_eq!(rewritten("SELECT CAST(a AS MULTISET<INT>)").unwrap_err().message(), "there is no MULTISET");
    }

    fn row(names: [&str; 2]) -> DataType {
        let types = [DataType::Int32, DataType::Utf8];
        DataType::Struct(names.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true)).collect())
    }

    #[test]
    fn fields_are_renamed_by_place_at_every_depth() {
        let from = types::list(row(["b", "a"]));
        let to = types::list(row(["a", "b"]));
        assert_eq!(renamed(&from, &to).unwrap(), to);
        let fields: Fields = [Arc::new(Field::new("x", DataType::Int32, true))].into_iter().collect();
        let error = renamed(&row(["a", "b"]), &DataType::Struct(fields)).unwrap_err();
        assert_eq!(error.message(), "ROW<a INT, b STRING> has 2 fields, ROW<x INT> has 1");
    }

    #[test]
    fn values_stay_when_names_change() {
        let DataType::Struct(fields) = row(["b", "a"]) else { panic!() };
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["x", "y"]))];
        let array: ArrayRef = Arc::new(StructArray::new(fields, columns.clone(), None));
        let made = relabelled(&array, &row(["a", "b"])).unwrap();
        assert_eq!(made.data_type(), &row(["a", "b"]));
        assert_eq!(made.to_data().child_data()[1], columns[1].to_data());
    }
}
