//! Special forms of SQL as calls of functions of ours, on the parsed query.
//!
//! | text | becomes |
//! |---|---|
//! | `SUBSTRING(s FROM a FOR n)` | `substring(s, a, n)` |
//! | `OVERLAY(s PLACING t FROM a FOR n)` | `overlay(s, t, a, n)` |
//! | `FLOOR(t TO HOUR)`, `CEIL(t TO HOUR)` | `floor_to('HOUR', t)`, `ceil_to('HOUR', t)` |
//! | `s SIMILAR TO p ESCAPE e` | `similar_to(s, p, 'e')` |
//! | `x BETWEEN SYMMETRIC a AND b` | `x BETWEEN a AND b OR x BETWEEN b AND a` |
//! | `TIMESTAMPADD(DAY, n, t)`, `TIMESTAMPDIFF(DAY, a, b)` | the unit as a text |
//! | `s LIKE 'a!_b' ESCAPE '!'` | `s LIKE 'a\_b'`, DataFusion's form |
//! | `CURRENT_DATE`, `UNIX_TIMESTAMP()` | calls of functions over the clock |
//! | `SHA256(x)`, `SHA2(x, 256)` | DataFusion's digest in hexadecimal digits |

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, UnaryOperator, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::cursor::is_keyword;
use crate::json;

/// Stands before the first bound of a symmetric BETWEEN, with an operator that binds less than any in a bound.
const SYMMETRIC: &str = "between symmetric";

/// `tokens` with what sqlparser cannot read in a form that it can.
pub(crate) fn readable(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut readable: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let follows_between = readable.last().is_some_and(|last| is_keyword(&last.token, "BETWEEN"));
        if follows_between && is_keyword(&token.token, "SYMMETRIC") {
            let word = Word { value: SYMMETRIC.to_owned(), quote_style: Some('`'), keyword: Keyword::NoKeyword };
            readable.push(TokenWithSpan { token: Token::Word(word), span: token.span });
            readable.push(TokenWithSpan { token: Token::Pipe, span: token.span });
        } else if !(follows_between && is_keyword(&token.token, "ASYMMETRIC")) {
            readable.push(token.clone());
        }
    }
    readable
}

/// A call of `name`.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('`', name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

pub(crate) fn text(value: impl Into<String>) -> Expr {
    Expr::Value(Value::SingleQuotedString(value.into()).into())
}

fn taken(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

fn taken_box(expr: &mut Option<Box<Expr>>) -> Option<Expr> {
    expr.take().map(|expr| *expr)
}

/// What `expr` becomes, if it is a special form.
pub(crate) fn rewrite_form(expr: &mut Expr) -> Option<Expr> {
    match expr {
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            let from =
                taken_box(substring_from).unwrap_or_else(|| Expr::Value(Value::Number("1".into(), false).into()));
            let args = [taken(expr), from].into_iter().chain(taken_box(substring_for)).collect();
            Some(call("substring", args))
        }
        Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            let args = [taken(expr), taken(overlay_what), taken(overlay_from)];
            Some(call("overlay", args.into_iter().chain(taken_box(overlay_for)).collect()))
        }
        Expr::Floor { expr, field } => to_unit("floor_to", expr, field),
        Expr::Ceil { expr, field } => to_unit("ceil_to", expr, field),
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            let escape = escape_char.as_ref().and_then(|value| value.value.clone().into_string()).map(text);
            let args = [taken(expr), taken(pattern)].into_iter().chain(escape).collect();
            let is = call("similar_to", args);
            Some(if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(is) } } else { is })
        }
        Expr::Between { expr, negated, low, high } => {
            drop_symmetric(low).then(|| symmetric(taken(expr), *negated, taken(low), taken(high)))
        }
        Expr::Like { pattern, escape_char, .. } => {
            backslashed(pattern, escape_char);
            None
        }
        Expr::IsNotDistinctFrom(value, kind) => is_json(value, kind),
        Expr::IsDistinctFrom(value, kind) => {
            let is = Box::new(is_json(value, kind)?);
            Some(Expr::UnaryOp { op: UnaryOperator::Not, expr: is })
        }
        Expr::Function(function) => rewrite_call(function),
        _ => None,
    }
}

/// DataFusion's LIKE escapes with a backslash, always; Flink's with what ESCAPE says, else with nothing.
fn backslashed(pattern: &mut Expr, escape_char: &mut Option<ValueWithSpan>) {
    let Expr::Value(value) = pattern else { return };
    let Value::SingleQuotedString(text) = &mut value.value else { return };
    let escape = escape_char.take().and_then(|value| value.value.into_string());
    let escape = escape.as_deref().and_then(|text| text.chars().next());
    let mut letters = text.chars();
    let mut translated = String::with_capacity(text.len());
    while let Some(letter) = letters.next() {
        let literal = if Some(letter) == escape { letters.next() } else { (letter == '\\').then_some(letter) };
        match literal {
            Some(literal) => translated.extend(['\\', literal]),
            None => translated.push(letter),
        }
    }
    *text = translated;
}

fn is_json(value: &mut Expr, kind: &Expr) -> Option<Expr> {
    match kind {
        Expr::Identifier(ident) => {
            let kind = ident.value.strip_prefix(json::IS_JSON)?.to_owned();
            Some(call("is_json", vec![taken(value), text(kind)]))
        }
        _ => None,
    }
}

/// Tells JSON_OBJECT and JSON_ARRAY which values are JSON already: those that such calls gave.
fn mark_json(args: &mut [FunctionArg]) {
    let is_json = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner))) => {
            let name = inner.name.to_string().replace('`', "").to_lowercase();
            matches!(name.as_str(), "json_object" | "json_array" | "json_query")
        }
        _ => false,
    };
    let places: Vec<String> =
        args.iter().enumerate().filter(|(_, arg)| is_json(arg)).map(|(place, _)| place.to_string()).collect();
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(mode)))) = args.first_mut()
        && let Value::SingleQuotedString(mode) = &mut mode.value
        && !places.is_empty()
    {
        *mode = format!("{mode};{}", places.join(","));
    }
}

fn to_unit(function: &str, expr: &mut Expr, field: &CeilFloorKind) -> Option<Expr> {
    match field {
        CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) | CeilFloorKind::Scale(_) => None,
        CeilFloorKind::DateTimeField(field) => Some(call(function, vec![text(field.to_string()), taken(expr)])),
    }
}

/// Takes the mark off the first bound, if it is there.
fn drop_symmetric(low: &mut Expr) -> bool {
    let Expr::BinaryOp { left, op: BinaryOperator::BitwiseOr, right } = low else { return false };
    match left.as_ref() {
        Expr::Identifier(ident) if ident.value == SYMMETRIC => {
            *low = taken(right);
            true
        }
        _ => drop_symmetric(left),
    }
}

fn symmetric(expr: Expr, negated: bool, low: Expr, high: Expr) -> Expr {
    let between = |low: &Expr, high: &Expr| {
        let (low, high) = (Box::new(low.clone()), Box::new(high.clone()));
        Box::new(Expr::Between { expr: Box::new(expr.clone()), negated, low, high })
    };
    let op = if negated { BinaryOperator::And } else { BinaryOperator::Or };
    Expr::Nested(Box::new(Expr::BinaryOp { left: between(&low, &high), op, right: between(&high, &low) }))
}

fn rewrite_call(function: &mut Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    let name = name.as_ident()?.value.to_lowercase();
    if function.args == FunctionArguments::None {
        return NILADIC.contains(&name.as_str()).then(|| call(&name, Vec::new()));
    }
    let FunctionArguments::List(list) = &mut function.args else { return None };
    match (name.as_str(), list.args.as_mut_slice()) {
        ("timestampadd" | "timestampdiff", [unit, ..]) => {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(unit)) = unit
                && let Expr::Identifier(ident) = unit
            {
                *unit = text(ident.value.to_uppercase());
            }
            None
        }
        ("json_object" | "json_array", args) => {
            mark_json(args);
            None
        }
        ("unix_timestamp", []) => Some(call("unix_timestamp_now", Vec::new())),
        ("sha224" | "sha256" | "sha384" | "sha512", [value]) => Some(in_hex(&name, value)?),
        ("sha2", [value, bits]) => {
            let bits = match bits {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(bits))) => bits.value.to_string(),
                _ => return None,
            };
            if !["224", "256", "384", "512"].contains(&bits.as_str()) {
                return None;
            }
            Some(in_hex(&format!("sha{bits}"), value)?)
        }
        _ => None,
    }
}

/// What stands without brackets.
const NILADIC: [&str; 6] =
    ["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_row_timestamp"];

fn in_hex(digest: &str, value: &mut FunctionArg) -> Option<Expr> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) = value else { return None };
    // DataFusion's function under a name that no text can have: its own may be rewritten again.
    Some(call("datafusion encode", vec![call(&format!("datafusion {digest}"), vec![taken(value)]), text("hex")]))
}
