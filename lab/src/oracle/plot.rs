//! The distributions as one SVG: for each loss rate the simulated steps on the model's band.
//! Main thread.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Compared;

/// Why no plot was drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {path}: {why}; name another file with --plot")]
pub struct NotDrawn {
    path: String,
    why: String,
}

/// Draws all loss rates into one file.
///
/// # Errors
///
/// [`NotDrawn`] when the file cannot be written.
pub fn draw(path: &Path, title: &str, compared: &[Compared]) -> Result<(), NotDrawn> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let caption = Some(title);
    paint(
        &area,
        caption,
        compared,
        [BLACK, RGBColor(200, 200, 200), WHITE],
    )
    .map_err(|why| NotDrawn {
        path: path.display().to_string(),
        why,
    })
}

/// The same as SVG for a page that has a title of its own, and whose style sheet replaces the three
/// colours [`PAGE`] by those of the reader's scheme.
///
/// # Errors
///
/// What the drawing library says.
pub(crate) fn for_page(compared: &[Compared]) -> Result<String, String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    paint(&area, None, compared, PAGE)?;
    drop(area);
    Ok(svg)
}

/// Ink, grid and ground of a page: colours that nothing else has.
const PAGE: [RGBColor; 3] = [RGBColor(1, 1, 1), RGBColor(2, 2, 2), RGBColor(3, 3, 3)];
const SIZE: (u32, u32) = (900, 520);

/// Told apart by readers with any colour vision (Okabe and Ito), on light and on dark.
const LINES: [RGBColor; 7] = [
    RGBColor(0, 135, 200),
    RGBColor(225, 130, 0),
    RGBColor(0, 158, 115),
    RGBColor(205, 100, 160),
    RGBColor(210, 80, 0),
    RGBColor(130, 130, 220),
    RGBColor(150, 140, 60),
];

fn paint<Backend: DrawingBackend>(
    area: &DrawingArea<Backend, Shift>,
    title: Option<&str>,
    compared: &[Compared],
    [ink, grid, ground]: [RGBColor; 3],
) -> Result<(), String> {
    let trouble = |why: &dyn std::error::Error| why.to_string();
    area.fill(&ground).map_err(|error| trouble(&error))?;
    let mut chart = ChartBuilder::on(area);
    if let Some(title) = title {
        chart.caption(title, ("sans-serif", 20));
    }
    let mut chart = chart
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        // Time begins at nothing, which a logarithm has not: one second stands between 1 and 2.
        .build_cartesian_2d(
            (1.0..LAST + 1.0)
                .log_scale()
                .with_key_points(TICKS.to_vec()),
            0.0..1.0,
        )
        .map_err(|error| trouble(&error))?;
    let words = ("sans-serif", 14).into_font().color(&ink);
    chart
        .configure_mesh()
        .x_desc("time until the handshake is complete")
        .y_desc("share of handshakes")
        .x_label_formatter(&|x| format!("{:.0} s", x - 1.0))
        .y_label_formatter(&|y| format!("{:.0} %", y * 100.0))
        .label_style(words.clone())
        .axis_style(grid)
        .bold_line_style(grid)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(|error| trouble(&error))?;
    for (it, colour) in compared.iter().zip(LINES.into_iter().cycle()) {
        let computed = stairs(it.computed.steps());
        let upper = computed.iter().map(|(x, y)| (*x, (y + it.bound).min(1.0)));
        let lower = computed
            .iter()
            .rev()
            .map(|(x, y)| (*x, (y - it.bound).max(0.0)));
        let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.35));
        chart
            .draw_series(std::iter::once(band))
            .map_err(|error| trouble(&error))?;
        let word = if it.agrees { "agrees" } else { "DIFFERS" };
        chart
            .draw_series(LineSeries::new(
                stairs(it.simulated.steps()),
                colour.stroke_width(2),
            ))
            .map_err(|error| trouble(&error))?
            .label(format!(
                "{} % loss: {word}, {:.4} of {:.4}",
                it.loss, it.distance, it.bound
            ))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .label_font(words)
        .background_style(ground)
        .border_style(grid)
        .draw()
        .map_err(|error| trouble(&error))?;
    area.present().map_err(|error| trouble(&error))
}

/// The corners of a function of steps, time shifted by a second for the logarithm.
fn stairs(steps: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut corners = Vec::new();
    let mut height = 0.0;
    for (at, sum) in steps.filter(|(at, _)| *at <= LAST) {
        corners.push((at + 1.0, height));
        corners.push((at + 1.0, sum));
        height = sum;
    }
    corners.push((LAST + 1.0, height));
    corners
}

/// Seconds; the end of the axis.
const LAST: f64 = 119.0;
/// Where a flight is sent for the second, third… time, a second further: evenly spaced on a logarithm.
const TICKS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
