//! Line charts as SVG. Pure.
//!
//! Ink and grid are drawn in two colours that nothing else has, which the page's style sheet
//! replaces by those of the reader's scheme; the lines' colours suit both.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);

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

const SIZE: (u32, u32) = (640, 380);

/// Title and legend, which are in no line's way there.
const HEAD: i32 = 50;

/// Left of the plot: the second axis.
const LEFT: i32 = 64;

/// Of a letter of the legend, about.
const LETTER: i32 = 7;

/// More points than pixels are of no use.
const MOST_POINTS: usize = 400;

/// A line with its name.
#[derive(Debug)]
pub(super) struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Thinned out to what can be seen.
    pub(super) fn new(name: &'static str, points: Vec<(f64, f64)>) -> Self {
        let step = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        let points = points
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % step == 0 || *at == last)
            .map(|(_, point)| point)
            .collect();
        Self { name, points }
    }
}

/// Lines over two axes with their units.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) series: Vec<Series>,
}

impl Chart {
    /// Both axes even, the second from 0.
    pub(super) fn linear(&self) -> Option<String> {
        let (x, y) = self.extent()?;
        self.draw(x, 0.0..y.end * 1.05, &plain, &plain)
    }

    /// The first axis by factors, the second from 0 to 1.
    pub(super) fn logarithmic_x(&self) -> Option<String> {
        let (x, _) = self.extent()?;
        self.draw(factors(&x).log_scale(), 0.0..1.05, &plain, &part)
    }

    /// The second axis by factors.
    pub(super) fn logarithmic_y(&self) -> Option<String> {
        let (x, y) = self.extent()?;
        self.draw(x, factors(&y).log_scale(), &plain, &plain)
    }

    /// The first axis by distance from 100 %, the second by factors.
    pub(super) fn by_percentile(&self) -> Option<String> {
        let (x, y) = self.extent()?;
        let x = (1.0..x.end.max(10.0)).log_scale();
        self.draw(x, factors(&y).log_scale(), &percentile, &plain)
    }

    /// The least and the most on each axis, if there is anything to draw.
    fn extent(&self) -> Option<(Range<f64>, Range<f64>)> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
                (least.min(value), most.max(value))
            });
            // One value alone has no extent.
            let most = if most > least { most } else { least + 1.0 };
            (least <= most && least < f64::MAX).then_some(least..most)
        };
        let x = range(&mut points().map(|point| point.0))?;
        let y = range(&mut points().map(|point| point.1))?;
        Some((x, y))
    }

    fn draw<X, Y>(
        &self,
        x: X,
        y: Y,
        x_label: &dyn Fn(&f64) -> String,
        y_label: &dyn Fn(&f64) -> String,
    ) -> Option<String>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // A chart that cannot be drawn is left out: the numbers stand in the tables.
        self.draw_on(&area, x, y, x_label, y_label).ok()?;
        drop(area);
        // Its own size would not let it shrink.
        let size = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
        Some(svg.replacen(&size, "", 1))
    }

    fn draw_on<'a, X, Y>(
        &self,
        area: &DrawingArea<SVGBackend<'a>, Shift>,
        x: X,
        y: Y,
        x_label: &dyn Fn(&f64) -> String,
        y_label: &dyn Fn(&f64) -> String,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let font = |size: u32| ("sans-serif", size).into_font().color(&INK);
        let (head, body) = area.split_vertically(HEAD);
        head.draw_text(self.title, &font(16), (LEFT, 8))?;
        let mut from = LEFT;
        for (series, color) in self.series.iter().zip(LINES.iter().cycle()) {
            let line = [(from, 38), (from + 18, 38)];
            head.draw(&PathElement::new(line, color.stroke_width(2)))?;
            head.draw_text(series.name, &font(13), (from + 24, 31))?;
            from += 44 + LETTER * i32::try_from(series.name.len()).unwrap_or(0);
        }
        let mut chart = ChartBuilder::on(&body)
            .margin(8)
            .margin_right(20)
            .x_label_area_size(42)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(x_label)
            .y_label_formatter(y_label)
            .x_labels(7)
            .y_labels(7)
            .max_light_lines(0)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(font(13))
            .axis_desc_style(font(13))
            .draw()?;
        for (series, color) in self.series.iter().zip(LINES.iter().cycle()) {
            let line = color.stroke_width(2);
            chart.draw_series(LineSeries::new(series.points.iter().copied(), line))?;
        }
        area.present()
    }
}

/// A range that has a logarithm, and some room at its end.
fn factors(range: &Range<f64>) -> Range<f64> {
    let least = range.start.max(1e-3);
    least..(range.end * 1.2).max(least * 10.0)
}

/// With the digits that it needs.
fn plain(value: &f64) -> String {
    let digits = match value.abs() {
        small if small < 0.01 => 3,
        small if small < 1.0 => 2,
        middle if middle < 10.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn part(value: &f64) -> String {
    format!("{:.0} %", value * 100.0)
}

/// From 1/(1 - part): 10 is 90 %.
fn percentile(value: &f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / value);
    let nines = value.log10().ceil().max(0.0) - 2.0;
    match nines {
        nines if nines <= 0.0 => format!("{percent:.0} %"),
        nines if nines <= 1.0 => format!("{percent:.1} %"),
        nines if nines <= 2.0 => format!("{percent:.2} %"),
        _ => format!("{percent:.3} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            title: "title",
            x: "time (s)",
            y: "latency (ms)",
            series: vec![Series::new("a line", points)],
        }
    }

    #[test]
    fn a_chart_names_its_axes_and_lines_and_nothing_to_draw_is_no_chart() {
        let svg = chart(vec![(0.0, 1.0), (1.0, 3.0)]).linear().unwrap();
        for text in ["title", "time (s)", "latency (ms)", "a line"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert_eq!(chart(Vec::new()).linear(), None);
        assert!(chart(vec![(5.0, 0.0)]).logarithmic_y().is_some());
    }

    #[test]
    fn a_long_line_keeps_its_ends_and_no_more_points_than_can_be_seen() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|n| (f64::from(n), 1.0)).collect();
        let series = Series::new("long", points);
        assert!(series.points.len() <= MOST_POINTS + 1);
        assert_eq!(series.points.first(), Some(&(0.0, 1.0)));
        assert_eq!(series.points.last(), Some(&(99_999.0, 1.0)));
    }

    #[test]
    fn numbers_on_an_axis_have_no_more_digits_than_they_need() {
        for (value, text) in [
            (0.0, "0"),
            (0.001, "0.001"),
            (0.1, "0.1"),
            (1.0, "1"),
            (2.5, "2.5"),
            (10.0, "10"),
            (10_000.0, "10000"),
        ] {
            assert_eq!(plain(&value), text);
        }
    }

    #[test]
    fn percentiles_have_the_digits_they_need() {
        for (value, text) in [
            (1.0, "0 %"),
            (10.0, "90 %"),
            (100.0, "99 %"),
            (1000.0, "99.9 %"),
        ] {
            assert_eq!(percentile(&value), text);
        }
    }
}
