//! `orlop images`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::reference::Reference;
use orlop_proto::runtime::Filter;
use orlop_proto::store::{ImageSummary, ListImagesRequest};
use serde_json::{Map, Value, json};

use super::{filters, pull};
use crate::app::Context;
use crate::error::CliError;
use crate::format::listing::{self, LABELS};
use crate::ui::table::Table;
use crate::ui::{self, size, text, time};

const NONE: &str = "<none>";

/// Show images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop images --format '{{.Repository}}:{{.Tag}}'")]
pub(crate) struct ImagesArgs {
    /// Only this repository, or this name
    name: Option<String>,

    /// Print ids only
    #[arg(short, long)]
    quiet: bool,

    /// Show ids in full
    #[arg(long)]
    no_trunc: bool,

    /// Show digests
    #[arg(long)]
    digests: bool,

    /// Show all (every image is shown without this option too)
    #[arg(short, long)]
    all: bool,

    /// Only those that fit: reference=NAME, label=KEY[=VALUE]
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,

    /// Template, `table TEMPLATE`, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: ImagesArgs, context: &Context) -> Result<ExitCode, CliError> {
    let filters = filters::parse(&args.filter, &["reference", "label"])?;
    let mut images = all(context).await?;
    if let Some(name) = &args.name {
        let wanted = pull::parse(name)?;
        let tagged = name
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains([':', '@']));
        images.retain(|image| is_named(image, &wanted, tagged));
    }
    images.retain(|image| fits(image, &filters));
    images.sort_by_key(|image| std::cmp::Reverse(image.created.map_or(i64::MIN, |c| c.seconds)));
    let rows: Vec<_> = images
        .iter()
        .map(|image| row(image, args.no_trunc))
        .collect();
    let cell = |row: &Map<String, Value>, name: &str| {
        row.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if args.quiet {
        rows.iter().try_for_each(|row| ui::line(cell(row, "ID")))?;
    } else if let Some(form) = &args.format {
        listing::print(form, &rows)?;
    } else {
        print(&rows, args.digests, &cell)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(
    rows: &[Map<String, Value>],
    digests: bool,
    cell: &dyn Fn(&Map<String, Value>, &str) -> String,
) -> Result<(), CliError> {
    let mut columns = vec![
        ("REPOSITORY", "Repository"),
        ("TAG", "Tag"),
        ("IMAGE ID", "ID"),
        ("CREATED", "CreatedSince"),
        ("SIZE", "Size"),
    ];
    if digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    let mut table = Table::default();
    table.row(columns.iter().map(|(header, _)| (*header).to_owned()));
    for row in rows {
        table.row(columns.iter().map(|(_, field)| cell(row, field)));
    }
    table.print()
}

/// All images of the store.
pub(super) async fn all(context: &Context) -> Result<Vec<ImageSummary>, CliError> {
    let mut client = context.clients.images()?;
    let mut images = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListImagesRequest {
            page_token,
            ..ListImagesRequest::default()
        };
        let page = client.list(request).await?.into_inner();
        images.extend(page.images);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(images);
        }
    }
}

fn reference(image: &ImageSummary) -> Option<Reference> {
    image.image.as_ref()?.name.parse().ok()
}

fn is_named(image: &ImageSummary, wanted: &Reference, tagged: bool) -> bool {
    reference(image).is_some_and(|reference| {
        if tagged {
            reference == *wanted
        } else {
            (reference.registry(), reference.repository())
                == (wanted.registry(), wanted.repository())
        }
    })
}

/// Values of one key are alternatives, keys are conditions.
fn fits(image: &ImageSummary, filters: &[Filter]) -> bool {
    let mut keys: BTreeMap<&str, bool> = BTreeMap::new();
    for filter in filters {
        let fit = match filter.key.as_str() {
            "label" => match filter.value.split_once('=') {
                Some((key, value)) => image.labels.get(key).is_some_and(|v| v == value),
                None => image.labels.contains_key(&filter.value),
            },
            _ => reference(image).is_some_and(|reference| {
                [
                    reference.familiar(),
                    reference.familiar_repository(),
                    reference.to_string(),
                ]
                .iter()
                .any(|name| wildcard(filter.value.as_bytes(), name.as_bytes()))
            }),
        };
        *keys.entry(&filter.key).or_default() |= fit;
    }
    keys.values().all(|fit| *fit)
}

/// `*` stands for anything but a slash, `?` for one character that is none.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    // The place to go on from when what follows the last star does not fit.
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if pattern.get(p) == Some(&text[t])
            || (pattern.get(p) == Some(&b'?') && text[t] != b'/')
        {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = retry.filter(|(_, from)| text[*from] != b'/') {
            p = star;
            t = from + 1;
            retry = Some((star, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn row(image: &ImageSummary, full: bool) -> Map<String, Value> {
    let reference = reference(image);
    let target = image
        .image
        .as_ref()
        .and_then(|image| image.target.clone())
        .unwrap_or_default();
    let id = if full {
        image.image_id.as_str()
    } else {
        text::short_id(&image.image_id)
    };
    let labels: Vec<String> = image
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let facts = json!({
        "Repository": reference.as_ref().map_or(NONE.to_owned(), Reference::familiar_repository),
        "Tag": reference.as_ref().and_then(Reference::tag).unwrap_or(NONE),
        "Digest": target.digest,
        "ID": id,
        "CreatedSince": time::ago(image.created.as_ref()),
        "CreatedAt": time::of(image.created.as_ref()).map_or("N/A".to_owned(), |t| t.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
        "Size": size::short(u64::try_from(image.size).unwrap_or(0)),
        "Labels": labels.join(","),
        LABELS: image.labels,
    });
    facts.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_within_a_component() {
        for (pattern, text, fits) in [
            ("busybox*", "busybox:latest", true),
            ("*box", "busybox", true),
            ("b?sybox", "busybox", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("", "", true),
        ] {
            assert_eq!(
                wildcard(pattern.as_bytes(), text.as_bytes()),
                fits,
                "{pattern} {text}"
            );
        }
    }
}
