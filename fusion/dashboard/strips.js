// Rows of strip charts, drawn once and then changed: what comes is only what differs from before.
import { echarts } from "nicegui-echart";

const SETTLE_MS = 350;
const SHOWN = {
  actual: "measured",
  value: "of its limit",
  setpoint: "setpoint",
  expected: "expected",
  mean: "forecast",
  applied: "if applied",
  nothing: "if nothing",
};

const figure = (v) => (Math.abs(v) >= 1e4 ? v.toFixed(0) : String(+v.toPrecision(4)));
const clean = (text) => echarts.format.encodeHTML(String(text));

export default {
  template: `<div style="width:100%"></div>`,
  mounted() {
    this.lines = new Map();
    this.number = -1;
    this.span = null;
    this.chart = echarts.init(this.$el, null, { renderer: "canvas", width: "auto", height: "auto" });
    this.chart.on("datazoom", () => this.zoomed());
    this.chart.getZr().on("click", (e) => this.pointed(e));
    this.observer = new ResizeObserver(() => this.chart.resize());
    this.observer.observe(this.$el);
    this.$emit("ready");
  },
  beforeUnmount() {
    clearTimeout(this.timer);
    this.observer?.disconnect();
    this.chart?.dispose();
  },
  methods: {
    // option: all of it; number: that of this message
    draw(option, number) {
      this.number = number;
      this.lines = new Map(option.series.map((line) => [line.id, line]));
      this.span = spanOf(option);
      this.chart.setOption({ ...option, ...this.hands(option) }, true);
    },
    // change: parts by their id; of data how many points go, stay and come
    patch(change, number) {
      if (number !== this.number + 1) {
        this.$emit("lost");
        return;
      }
      this.number = number;
      for (const part of change.series ?? []) {
        const line = this.lines.get(part.id);
        if (part.data) part.data = line.data.slice(part.data.cut, part.data.cut + part.data.keep).concat(part.data.add);
        Object.assign(line, part);
      }
      const span = spanOf(change);
      if (span) {
        this.span = span;
        change.dataZoom = [{ id: "zoom", start: 0, end: 100 }];
      }
      this.chart.setOption(change);
    },
    hands(option) {
      const all = option.xAxis.map((_, i) => i);
      return {
        axisPointer: { link: [{ xAxisIndex: "all" }] },
        tooltip: {
          trigger: "axis",
          confine: true,
          transitionDuration: 0,
          formatter: (found) => this.told(found),
          axisPointer: { type: "line", animation: false },
          backgroundColor: option.ground,
          borderColor: option.textStyle.color,
          textStyle: { fontSize: 12, color: option.textStyle.color },
        },
        dataZoom: [
          {
            id: "zoom",
            type: "inside",
            xAxisIndex: all,
            filterMode: "none",
            zoomOnMouseWheel: "ctrl",
            moveOnMouseWheel: false,
            preventDefaultMouseMove: false,
            disabled: !option.movable,
          },
        ],
      };
    },
    told(found) {
      const rows = [];
      for (const { seriesId, value } of found) {
        const at = seriesId.lastIndexOf(".");
        const word = SHOWN[seriesId.slice(at + 1)];
        if (word === undefined || value?.[1] == null) continue;
        const unit = this.lines.get(seriesId)?.unit ?? "";
        rows.push(`${clean(seriesId.slice(0, at))} ${word} <b>${figure(value[1])}</b> ${clean(unit)}`);
      }
      if (!rows.length) return "";
      const time = new Date(found[0].axisValue).toLocaleString("sv-SE");
      return [`<b>${time}</b>`, ...new Set(rows)].join("<br>");
    },
    zoomed() {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        const { start, end } = this.chart.getOption().dataZoom[0];
        if (start <= 0 && end >= 100) return;
        const [from, to] = this.span;
        this.$emit("zoom", { from: from + ((to - from) * start) / 100, to: from + ((to - from) * end) / 100 });
      }, SETTLE_MS);
    },
    pointed(e) {
      if (!this.chart.getOption().grid?.some((_, i) => this.chart.containPixel({ gridIndex: i }, [e.offsetX, e.offsetY])))
        return;
      this.$emit("at", { t: this.chart.convertFromPixel({ xAxisIndex: 0 }, e.offsetX) });
    },
  },
};

function spanOf(option) {
  const axis = option.xAxis?.find((found) => found.min !== undefined);
  return axis ? [axis.min, axis.max] : null;
}
