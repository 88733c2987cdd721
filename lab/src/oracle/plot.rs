//! The distributions as one SVG: for each loss rate the simulated steps on the model's line and its band.
//! Main thread.

use std::path::Path;

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
    let trouble = |why: &dyn std::error::Error| NotDrawn {
        path: path.display().to_string(),
        why: why.to_string(),
    };
    let area = SVGBackend::new(path, (900, 560)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| trouble(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(56)
        // Time begins at nothing, which a logarithm has not: one second stands between 1 and 2.
        .build_cartesian_2d((1.0..LAST + 1.0).log_scale(), 0.0..1.0)
        .map_err(|error| trouble(&error))?;
    chart
        .configure_mesh()
        .x_desc("time until the handshake is complete")
        .y_desc("share of handshakes")
        .x_label_formatter(&|x| format!("{:.0} s", x - 1.0))
        .y_label_formatter(&|y| format!("{:.0} %", y * 100.0))
        .draw()
        .map_err(|error| trouble(&error))?;
    for (index, it) in compared.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let computed = stairs(it.computed.steps());
        let upper = computed.iter().map(|(x, y)| (*x, (y + it.bound).min(1.0)));
        let lower = computed
            .iter()
            .rev()
            .map(|(x, y)| (*x, (y - it.bound).max(0.0)));
        let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), colour.mix(0.25));
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
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
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
