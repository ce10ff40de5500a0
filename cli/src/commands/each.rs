//! Commands that take several names: each is tried, each failure told, and the exit code says whether
//! all went well.

use std::process::ExitCode;

use crate::error::CliError;
use crate::ui;

/// Calls `action` for each name in turn.
pub(super) async fn each(
    names: &[String],
    action: impl AsyncFn(String) -> Result<(), CliError>,
) -> Result<ExitCode, CliError> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match action(name.clone()).await {
            Ok(()) => {}
            Err(error @ CliError::Output(_)) => return Err(error),
            Err(error) => {
                ui::report(&error);
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    Ok(code)
}
