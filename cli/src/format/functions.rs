//! The functions of templates: Go's, and those that Docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf::printf;

/// The most that `pad` adds.
const PAD_MAX: i64 = 4096;

/// Calls a function by its name.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match (name, arguments) {
        ("json", [value]) => Ok(Value::from(value.to_string())),
        ("len", [value]) => length(value),
        ("index", [of, keys @ ..]) => keys.iter().try_fold(of.clone(), |of, key| index(&of, key)),
        ("slice", [of, bounds @ ..]) if bounds.len() <= 2 => slice(of, bounds),
        ("upper", [Value::String(text)]) => Ok(Value::from(text.to_uppercase())),
        ("lower", [Value::String(text)]) => Ok(Value::from(text.to_lowercase())),
        ("title", [Value::String(text)]) => Ok(Value::from(title(text))),
        ("join", [Value::Array(items), Value::String(separator)]) => {
            let texts: Vec<String> = items.iter().map(text).collect();
            Ok(Value::from(texts.join(separator)))
        }
        ("join", [Value::Null, Value::String(_)]) => Ok(Value::from("")),
        ("split", [Value::String(whole), Value::String(separator)]) => {
            Ok(whole.split(separator.as_str()).map(Value::from).collect())
        }
        ("truncate", [Value::String(whole), Value::Number(most)]) => {
            let most = usize::try_from(most.as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
            Ok(Value::from(whole.chars().take(most).collect::<String>()))
        }
        (
            "pad",
            [
                Value::String(middle),
                Value::Number(before),
                Value::Number(after),
            ],
        ) => {
            let spaces = |n: &serde_json::Number| {
                let count = n.as_i64().unwrap_or(0).clamp(0, PAD_MAX);
                " ".repeat(usize::try_from(count).unwrap_or(0))
            };
            Ok(Value::from(format!(
                "{}{middle}{}",
                spaces(before),
                spaces(after)
            )))
        }
        ("print", values) => Ok(Value::from(
            values.iter().map(text).collect::<Vec<_>>().join(" "),
        )),
        ("println", values) => {
            let line = values.iter().map(text).collect::<Vec<_>>().join(" ");
            Ok(Value::from(line + "\n"))
        }
        ("printf", [Value::String(form), values @ ..]) => printf(form, values).map(Value::from),
        ("not", [value]) => Ok(Value::from(!truth(value))),
        ("and", [.., last]) => Ok(arguments.iter().find(|v| !truth(v)).unwrap_or(last).clone()),
        ("or", [.., last]) => Ok(arguments.iter().find(|v| truth(v)).unwrap_or(last).clone()),
        ("eq", [first, others @ ..]) if !others.is_empty() => Ok(Value::from(
            others
                .iter()
                .any(|other| order(first, other) == Some(Ordering::Equal)),
        )),
        ("ne" | "lt" | "le" | "gt" | "ge", [left, right]) => compare(name, left, right),
        _ if KNOWN.contains(&name) => Err(format!("{name} does not take these arguments")),
        _ => Err(format!(
            "unknown function {name}; there are {}",
            KNOWN.join(" ")
        )),
    }
}

const KNOWN: [&str; 23] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
];

/// What Go's templates take for true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What Go prints.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(text).collect();
            format!("[{}]", texts.join(" "))
        }
        Value::Object(map) => {
            let texts: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}:{}", text(v)))
                .collect();
            format!("map[{}]", texts.join(" "))
        }
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(Value::from(text.len())),
        Value::Array(items) => Ok(Value::from(items.len())),
        Value::Object(map) => Ok(Value::from(map.len())),
        Value::Null => Ok(Value::from(0)),
        other => Err(format!("len of {} which has no length", text(other))),
    }
}

fn index(of: &Value, key: &Value) -> Result<Value, String> {
    match (of, key) {
        (Value::Object(map), Value::String(key)) => {
            Ok(map.get(key).cloned().unwrap_or_else(|| Value::from("")))
        }
        (Value::Array(items), Value::Number(at)) => {
            let found = at
                .as_u64()
                .and_then(|at| items.get(usize::try_from(at).ok()?));
            found.cloned().ok_or(format!("index {at} is out of range"))
        }
        (Value::Null, _) => Ok(Value::from("")),
        _ => Err(format!("cannot index {} by {}", text(of), text(key))),
    }
}

fn slice(of: &Value, bounds: &[Value]) -> Result<Value, String> {
    let bound = |at: usize, default: usize| {
        let given = bounds
            .get(at)
            .map(|value| value.as_u64().and_then(|n| usize::try_from(n).ok()));
        given.map_or(Some(default), |given| given)
    };
    let length = match of {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("cannot slice {}", text(other))),
    };
    let range = match (bound(0, 0), bound(1, length)) {
        (Some(from), Some(to)) if from <= to && to <= length => from..to,
        _ => return Err("slice out of range".to_owned()),
    };
    match of {
        Value::String(text) => text
            .get(range)
            .map(Value::from)
            .ok_or("slice within a character".to_owned()),
        Value::Array(items) => Ok(Value::Array(items[range].to_vec())),
        _ => Ok(Value::Null),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !c.is_alphanumeric();
    }
    out
}

fn compare(name: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let order = order(left, right);
    let answer = match (name, order) {
        ("ne", order) => order != Some(Ordering::Equal),
        (_, None) => return Err(format!("cannot compare {} and {}", text(left), text(right))),
        ("lt", Some(order)) => order.is_lt(),
        ("le", Some(order)) => order.is_le(),
        ("gt", Some(order)) => order.is_gt(),
        (_, Some(order)) => order.is_ge(),
    };
    Ok(Value::from(answer))
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => (left == right).then_some(Ordering::Equal),
    }
}
