// Rolling log-mel spectrogram: new columns enter at the right; the colour range follows what is shown.
const STOPS = [
  [8, 10, 30],
  [60, 20, 100],
  [150, 40, 95],
  [225, 95, 40],
  [250, 190, 60],
  [252, 252, 210],
];

function colour(share) {
  const at = Math.max(0, Math.min(0.9999, share)) * (STOPS.length - 1);
  const [a, b, f] = [STOPS[Math.floor(at)], STOPS[Math.floor(at) + 1], at % 1];
  return a.map((v, i) => v + f * (b[i] - v));
}

export default {
  template: `<canvas style="width:100%;height:100%;display:block"></canvas>`,
  mounted() {
    this.columns = [];
    this.frequency = [];
    this.range = null;
    this.band = null;
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.$el);
  },
  unmounted() {
    this.observer?.disconnect();
  },
  methods: {
    // columns: lists of dB, oldest first; count: how many fit; frequency: band centres in Hz
    append(columns, count, frequency, columnSeconds, afresh) {
      if (afresh) this.columns = [];
      this.frequency = frequency;
      this.count = count;
      this.columnSeconds = columnSeconds;
      this.columns = this.columns.concat(columns).slice(-count);
      const sorted = this.columns.flat().sort((a, b) => a - b);
      if (!sorted.length) return;
      const low = sorted[Math.floor(0.05 * sorted.length)];
      const high = Math.max(low + 20, sorted[Math.floor(0.998 * (sorted.length - 1))]);
      this.range = [low, high];
      this.draw();
    },
    // band: edges in Hz, or null
    outline(band) {
      this.band = band;
      this.draw();
    },
    draw() {
      const { clientWidth: width, clientHeight: height } = this.$el;
      if (!width || !height || !this.range) return;
      this.$el.width = width;
      this.$el.height = height;
      const pen = this.$el.getContext("2d");
      pen.fillStyle = "#11161a";
      pen.fillRect(0, 0, width, height);
      const bands = this.frequency.length;
      const picture = new ImageData(this.count, bands);
      const [low, high] = this.range;
      const start = this.count - this.columns.length;
      this.columns.forEach((column, i) =>
        column.forEach((level, band) => {
          const at = 4 * ((bands - 1 - band) * this.count + start + i);
          picture.data.set([...colour((level - low) / (high - low)), 255], at);
        }),
      );
      const sheet = new OffscreenCanvas(this.count, bands);
      sheet.getContext("2d").putImageData(picture, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(sheet, 0, 0, width, height);
      if (this.band) this.framed(pen, width, height, bands);
      this.labels(pen, width, height, bands);
    },
    framed(pen, width, height, bands) {
      const edge = (hz) => height * (1 - this.frequency.filter((f) => f < hz).length / bands);
      const [low, high] = this.band.map(edge);
      pen.strokeStyle = "#000000";
      pen.lineWidth = 4;
      pen.strokeRect(2, high, width - 4, low - high);
      pen.strokeStyle = "#ffffff";
      pen.lineWidth = 2;
      pen.strokeRect(2, high, width - 4, low - high);
    },
    labels(pen, width, height, bands) {
      pen.font = "11px sans-serif";
      pen.fillStyle = "#ffffff";
      pen.shadowColor = "#000000";
      pen.shadowBlur = 3;
      for (const hz of [200, 1000, 4000]) {
        const band = this.frequency.findIndex((f) => f >= hz);
        if (band > 0) pen.fillText(hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`, 4, height * (1 - band / bands) + 4);
      }
      const seconds = Math.round(this.count * this.columnSeconds);
      pen.textAlign = "right";
      pen.fillText(`${seconds} s, ${this.range[0].toFixed(0)} .. ${this.range[1].toFixed(0)} dB`, width - 4, 12);
    },
  },
};
