//! Tables of aligned columns, as Docker's tabwriter makes them: three spaces between columns.

use crate::error::CliError;
use crate::ui;

const GAP: usize = 3;
/// Docker's least width of a column.
const WIDTH_MIN: usize = 10;

/// Rows of cells; cells are escaped here.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    least: usize,
}

impl Table {
    pub(crate) fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            rows: vec![header.into_iter().map(str::to_owned).collect()],
            ..Self::default()
        }
    }

    /// Without rows yet; each column is at least so wide.
    pub(crate) fn of_width(least: usize) -> Self {
        Self {
            rows: Vec::new(),
            least,
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let escaped = cells.into_iter().map(|cell| ui::text::escape(&cell));
        self.rows.push(escaped.collect());
    }

    pub(crate) fn print(&self) -> Result<(), CliError> {
        ui::raw(self.render().as_bytes())
    }

    fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let longest = cells.map(|cell| cell.chars().count()).max();
            (longest.unwrap_or_default() + GAP).max(self.least)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if index + 1 < row.len() {
                    let pad = widths[index] - cell.chars().count();
                    line.extend(std::iter::repeat_n(' ', pad));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::of_width(WIDTH_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_d15_cells_are_escaped() {
        let mut table = Table::new(["NAME", "SIZE"]);
        table.row(["a\u{1b}[2J".to_owned(), "1B".to_owned()]);
        assert_eq!(table.render(), "NAME         SIZE\na\\u{1b}[2J   1B\n");
    }
}
