//! The timeline: acknowledged operations a second, faults as bands, the longest outages marked.

use super::html::escape;
use super::page::{seconds, time};
use crate::check::{Figures, KINDS, Second};
use crate::history::Micros;

/// A colour for each kind of operation; told apart by people who see colours differently, too.
pub(super) const COLOURS: [&str; 6] =
    ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#8c8c8c"];

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 26.0;
const PLOT: f64 = 220.0;
const LANE: f64 = 15.0;
/// Rows of fault bars at most; what overlaps more shares the last one.
const LANES: usize = 8;
/// Columns at most: longer runs are averaged.
const COLUMNS: usize = 320;
/// Outages that are marked.
const MARKED: usize = 8;

struct Chart<'f> {
    figures: &'f Figures,
    /// Microseconds that the axis covers.
    length: f64,
    /// Operations a second at the top.
    top: f64,
    svg: String,
}

/// The picture with a title and a description.
pub(super) fn timeline(figures: &Figures) -> String {
    let columns = columns(&figures.seconds);
    let most = columns.iter().map(|(_, rates)| rates.iter().sum::<f64>()).fold(1.0, f64::max);
    let length = micros(figures.length).max(1_000_000.0);
    let mut chart = Chart { figures, length, top: nice(most), svg: String::new() };
    let lanes = chart.bands();
    chart.grid();
    chart.areas(&columns);
    chart.phases();
    chart.gaps();
    let height = TOP + PLOT + 30.0 + LANE * lanes + 8.0;
    let description = describe(figures, most);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-labelledby=\"chart-title chart-text\">\n\
         <title id=\"chart-title\">Acknowledged operations a second, and faults</title>\n\
         <desc id=\"chart-text\">{}</desc>\n{}</svg>\n",
        escape(&description),
        chart.svg
    )
}

/// What the picture shows, in words.
pub(super) fn describe(figures: &Figures, most: f64) -> String {
    let faults = figures.faults.iter().filter(|fault| fault.effect == "installed").count();
    let pause = figures.pauses.first().map_or_else(String::new, |(from, to)| {
        format!(
            " The longest time without an acknowledged escrow was {} at {}.",
            time(to.saturating_sub(*from)),
            time(*from)
        )
    });
    format!(
        "Over {} the servers acknowledged up to {most:.0} operations a second; {faults} faults took effect.{pause}",
        time(figures.length)
    )
}

fn micros(at: Micros) -> f64 {
    seconds(at) * 1_000_000.0
}

/// A round number that is not below, and whose quarters are round.
fn nice(most: f64) -> f64 {
    let magnitude = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * magnitude).find(|top| *top >= most).unwrap_or(most)
}

/// Seconds between two marks of the axis: at most ten fit.
fn marks(seconds: f64) -> f64 {
    let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0];
    steps.into_iter().find(|step| seconds / step <= 10.0).unwrap_or(seconds / 10.0)
}

/// Rates of each kind: when the column begins, in seconds, and operations a second.
fn columns(all: &[Second]) -> Vec<(f64, [f64; 6])> {
    let size = all.len().div_ceil(COLUMNS).max(1);
    let mut columns = Vec::new();
    for (at, chunk) in all.chunks(size).enumerate() {
        let length = number(chunk.len());
        let mut rates = [0.0; 6];
        for second in chunk {
            for (rate, count) in rates.iter_mut().zip(second.ok) {
                *rate += f64::from(count) / length;
            }
        }
        columns.push((number(at.saturating_mul(size)), rates));
    }
    columns
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Chart<'_> {
    fn x(&self, at: f64) -> f64 {
        LEFT + (at / self.length).clamp(0.0, 1.0) * (WIDTH - LEFT - 10.0)
    }

    fn y(&self, rate: f64) -> f64 {
        TOP + PLOT - PLOT * (rate / self.top).clamp(0.0, 1.0)
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escape(text);
        self.svg.push_str(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    }

    /// Bands behind the curve, and a bar with the fault's name below it. Gives the number of rows of bars.
    fn bands(&mut self) -> f64 {
        let mut ends = [0.0_f64; LANES];
        let mut used = 0;
        for fault in self.figures.faults.iter().filter(|fault| fault.effect != "skipped") {
            let (from, to) = (self.x(micros(fault.from)), self.x(micros(fault.to)));
            let width = (to - from).max(1.5);
            let label = format!(
                "{} {}: {}, {} from {} on ({})",
                fault.number,
                fault.kind,
                fault.target,
                time(fault.to.saturating_sub(fault.from)),
                time(fault.from),
                fault.effect
            );
            let lane = ends.iter().position(|end| *end <= from).unwrap_or(LANES - 1);
            used = used.max(lane + 1);
            // Names need room, too.
            let name = 6.2 * number(fault.kind.chars().count());
            if let Some(end) = ends.get_mut(lane) {
                *end = from + width.max(name) + 4.0;
            }
            let y = TOP + PLOT + 30.0 + LANE * number(lane);
            self.svg.push_str(&format!(
                "<g class=\"fault\"><title>{}</title>\
                 <rect class=\"band\" x=\"{from:.1}\" y=\"{TOP:.1}\" width=\"{width:.1}\" height=\"{PLOT:.1}\"/>\
                 <rect class=\"bar\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/></g>\n",
                escape(&label),
                LANE - 3.0
            ));
            self.text(from + 2.0, y + LANE - 6.0, "start", &fault.kind.clone());
        }
        number(used)
    }

    fn grid(&mut self) {
        for part in 0..=4_u32 {
            let rate = self.top * f64::from(part) / 4.0;
            let y = self.y(rate);
            self.svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{LEFT:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\"/>\n",
                WIDTH - 10.0
            ));
            let label =
                if rate.fract() == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") };
            self.text(LEFT - 6.0, y + 4.0, "end", &label);
        }
        let step = marks(self.length / 1_000_000.0);
        for mark in 0..=10_u32 {
            let at = step * f64::from(mark) * 1_000_000.0;
            if at <= self.length * 0.99 {
                let label = format!("{:.0} s", at / 1_000_000.0);
                self.text(self.x(at), TOP + PLOT + 16.0, "middle", &label);
            }
        }
    }

    /// One area for each kind, on top of each other.
    fn areas(&mut self, columns: &[(f64, [f64; 6])]) {
        let mut below = vec![0.0; columns.len()];
        for (kind, (name, colour)) in KINDS.iter().zip(COLOURS).enumerate() {
            let (mut over, mut under) = (String::new(), Vec::new());
            for (at, ((from, rates), base)) in columns.iter().zip(&mut below).enumerate() {
                let last = self.length / 1_000_000.0;
                let to = columns.get(at + 1).map_or(last, |(next, _)| *next);
                let (left, right) = (self.x(from * 1_000_000.0), self.x(to * 1_000_000.0));
                let low = self.y(*base);
                *base += rates.get(kind).copied().unwrap_or(0.0);
                let high = self.y(*base);
                over.push_str(&format!("{left:.1},{high:.1} {right:.1},{high:.1} "));
                under.push(format!("{right:.1},{low:.1} {left:.1},{low:.1}"));
            }
            under.reverse();
            self.svg.push_str(&format!(
                "<polygon fill=\"{colour}\" points=\"{over}{}\"><title>{name}</title></polygon>\n",
                under.join(" ")
            ));
        }
    }

    fn phases(&mut self) {
        for (at, name) in &self.figures.phases {
            let x = self.x(micros(*at));
            self.svg.push_str(&format!(
                "<line class=\"phase\" x1=\"{x:.1}\" y1=\"{TOP:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>\n",
                TOP + PLOT
            ));
            let text = escape(name);
            self.svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"start\">{text}</text>\n",
                x + 2.0,
                TOP - 14.0
            ));
        }
    }

    /// The longest pauses as red brackets above the curve.
    fn gaps(&mut self) {
        for (from, to) in self.figures.pauses.iter().take(MARKED) {
            let length = to.saturating_sub(*from);
            if length < 250_000 {
                continue;
            }
            let (left, right) = (self.x(micros(*from)), self.x(micros(*to)));
            let width = (right - left).max(2.0);
            let label = format!("no escrow for {} from {} on", time(length), time(*from));
            self.svg.push_str(&format!(
                "<rect class=\"gap\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"6\"><title>{}</title></rect>\n",
                TOP - 9.0,
                escape(&label)
            ));
        }
    }
}
