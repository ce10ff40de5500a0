//! `printf`: Go's verbs `%s %v %d %q %t %f %x %%`, with `-`, `0`, a width and a precision.

use serde_json::Value;

use super::functions::text;

/// The widest field.
const WIDTH_MAX: usize = 4096;

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats values.
pub(super) fn printf(form: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = form.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = spec(&mut chars)?;
        let verb = chars.next().ok_or("printf: % at the end")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or(format!("printf: no value for %{verb}"))?;
        out.push_str(&padded(&verb_text(verb, value, &spec)?, &spec));
    }
    Ok(out)
}

fn spec(chars: &mut std::iter::Peekable<std::str::Chars>) -> Result<Spec, String> {
    let mut spec = Spec::default();
    while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ')) {
        spec.left |= flag == '-';
        spec.zero |= flag == '0';
    }
    spec.width = digits(chars)?.unwrap_or(0);
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(digits(chars)?.unwrap_or(0));
    }
    Ok(spec)
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars>) -> Result<Option<usize>, String> {
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        let digit = digit.to_digit(10).unwrap_or(0) as usize;
        let next = number.unwrap_or(0).saturating_mul(10).saturating_add(digit);
        if next > WIDTH_MAX {
            return Err("printf: the width is too large".to_owned());
        }
        number = Some(next);
    }
    Ok(number)
}

fn verb_text(verb: char, value: &Value, spec: &Spec) -> Result<String, String> {
    let wrong = || format!("printf: %{verb} does not fit {}", text(value));
    Ok(match verb {
        's' | 'v' => {
            let whole = text(value);
            spec.precision
                .map_or(whole.clone(), |most| whole.chars().take(most).collect())
        }
        'q' => format!("{:?}", text(value)),
        'd' => value.as_i64().ok_or_else(wrong)?.to_string(),
        'x' => match value {
            Value::String(text) => text.bytes().map(|b| format!("{b:02x}")).collect(),
            other => format!("{:x}", other.as_i64().ok_or_else(wrong)?),
        },
        'f' => {
            let precision = spec.precision.unwrap_or(6);
            format!("{:.precision$}", value.as_f64().ok_or_else(wrong)?)
        }
        't' => value.as_bool().ok_or_else(wrong)?.to_string(),
        _ => return Err(format!("printf: %{verb} is not built")),
    })
}

fn padded(text: &str, spec: &Spec) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    match (spec.left, spec.zero) {
        (true, _) => text.to_owned() + &" ".repeat(missing),
        (false, true) => "0".repeat(missing) + text,
        (false, false) => " ".repeat(missing) + text,
    }
}
