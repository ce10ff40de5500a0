//! `--format` of lists: `json`, `table …`, or a template a row.

use serde_json::{Map, Value};

use super::Template;
use crate::error::CliError;
use crate::ui;
use crate::ui::table::Table;

/// Where a row keeps its labels as a map, for `.Label "key"`. Not shown in `json`.
pub(crate) const LABELS: &str = " labels";

/// Prints rows in a form of the user's.
pub(crate) fn print(form: &str, rows: &[Map<String, Value>]) -> Result<(), CliError> {
    if form == "json" {
        return rows.iter().try_for_each(print_json);
    }
    if let Some(columns) = form.strip_prefix("table") {
        return print_table(columns.trim_start(), rows);
    }
    let template = Template::parse(form)?;
    for row in rows {
        ui::line(template.render(&Value::Object(row.clone()))?)?;
    }
    Ok(())
}

fn print_json(row: &Map<String, Value>) -> Result<(), CliError> {
    let mut row = row.clone();
    row.remove(LABELS);
    ui::line(Value::Object(row).to_string())
}

/// Columns are separated by tabs; each header is the name of its field, in Docker's spelling.
fn print_table(columns: &str, rows: &[Map<String, Value>]) -> Result<(), CliError> {
    let template = Template::parse(columns)?;
    let names = rows.first().map(headers).unwrap_or_default();
    let header = if rows.is_empty() {
        header_of_text(columns)
    } else {
        template.render(&Value::Object(names))?
    };
    let mut table = Table::default();
    table.row(cells(&header));
    for row in rows {
        table.row(cells(&template.render(&Value::Object(row.clone()))?));
    }
    table.print()
}

fn cells(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// A row whose values are the headers of its fields.
fn headers(row: &Map<String, Value>) -> Map<String, Value> {
    row.keys()
        .map(|name| (name.clone(), Value::from(header(name))))
        .collect()
}

/// The headers without a row to go by: the last field of each column.
fn header_of_text(columns: &str) -> String {
    let name = |column: &str| {
        let start = column.rfind('.').map_or(0, |at| at + 1);
        let word = column[start..].chars().take_while(|c| c.is_alphanumeric());
        header(&word.collect::<String>())
    };
    let columns = columns.replace("\\t", "\t");
    columns.split('\t').map(name).collect::<Vec<_>>().join("\t")
}

fn header(name: &str) -> String {
    match name {
        "ID" => "ID".to_owned(),
        "CreatedSince" | "RunningFor" => "CREATED".to_owned(),
        "CreatedAt" => "CREATED AT".to_owned(),
        "CPUPerc" => "CPU %".to_owned(),
        "MemUsage" => "MEM USAGE / LIMIT".to_owned(),
        "MemPerc" => "MEM %".to_owned(),
        "NetIO" => "NET I/O".to_owned(),
        "BlockIO" => "BLOCK I/O".to_owned(),
        other => other.to_uppercase(),
    }
}
