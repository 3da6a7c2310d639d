// A point cloud on a 2-D canvas: drag turns, wheel zooms. No WebGL, so it runs on any operator station.
export default {
  template: `<canvas style="width:100%;height:100%;display:block;cursor:grab;touch-action:none"></canvas>`,
  data() {
    return { yaw: -0.8, pitch: 0.5, zoom: 1, low: null, high: null };
  },
  mounted() {
    this.points = new Float32Array();
    let from = null;
    this.$el.addEventListener("pointerdown", (e) => {
      from = [e.clientX, e.clientY];
      this.$el.setPointerCapture(e.pointerId);
    });
    this.$el.addEventListener("pointermove", (e) => {
      if (!from) return;
      this.yaw += (e.clientX - from[0]) * 0.01;
      this.pitch = Math.max(-1.57, Math.min(1.57, this.pitch + (e.clientY - from[1]) * 0.01));
      from = [e.clientX, e.clientY];
      this.draw();
    });
    this.$el.addEventListener("pointerup", () => (from = null));
    this.$el.addEventListener("wheel", (e) => {
      e.preventDefault();
      this.zoom = Math.max(0.2, Math.min(10, this.zoom * Math.exp(-e.deltaY * 0.001)));
      this.draw();
    });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.$el);
  },
  unmounted() {
    this.observer?.disconnect();
  },
  methods: {
    // data: base64 of lowest values and steps of x, y, z, intensity as float32, then uint16 x, y, z and uint8 intensity
    show(data) {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)).buffer;
      if (!bytes.byteLength) return;
      const [scale, count] = [new Float32Array(bytes, 0, 8), (bytes.byteLength - 32) / 7];
      const [places, shades] = [new Uint16Array(bytes, 32, 3 * count), new Uint8Array(bytes, 32 + 6 * count)];
      this.points = Float32Array.from({ length: 4 * count }, (_, i) => {
        const [point, axis] = [Math.floor(i / 4), i % 4];
        return scale[axis] + scale[4 + axis] * (axis === 3 ? shades[point] : places[3 * point + axis]);
      });
      const low = [Infinity, Infinity, Infinity];
      const high = [-Infinity, -Infinity, -Infinity];
      for (let i = 0; i < this.points.length; i++) {
        const axis = i % 4;
        if (axis === 3) continue;
        low[axis] = Math.min(low[axis], this.points[i]);
        high[axis] = Math.max(high[axis], this.points[i]);
      }
      if (!this.points.length) return;
      // the view follows slowly, so that noise at the rim does not make it tremble
      const keep = this.low ? 0.9 : 0;
      this.low = low.map((v, i) => keep * (this.low?.[i] ?? 0) + (1 - keep) * v);
      this.high = high.map((v, i) => keep * (this.high?.[i] ?? 0) + (1 - keep) * v);
      this.draw();
    },
    draw() {
      const { clientWidth: width, clientHeight: height } = this.$el;
      if (!width || !height || !this.low) return;
      const ratio = window.devicePixelRatio || 1;
      this.$el.width = width * ratio;
      this.$el.height = height * ratio;
      const pen = this.$el.getContext("2d");
      pen.scale(ratio, ratio);
      pen.fillStyle = "#11161a";
      pen.fillRect(0, 0, width, height);
      const middle = this.low.map((v, i) => (v + this.high[i]) / 2);
      const size = Math.hypot(...this.low.map((v, i) => this.high[i] - v)) || 1;
      const scale = (this.zoom * Math.min(width, height) * 1.15) / size;
      const [cy, sy] = [Math.cos(this.yaw), Math.sin(this.yaw)];
      const [cp, sp] = [Math.cos(this.pitch), Math.sin(this.pitch)];
      const place = (x, y, z) => {
        const [a, b, c] = [x - middle[0], y - middle[1], z - middle[2]];
        const right = cy * a - sy * b;
        const deep = sy * a + cy * b;
        return [width / 2 + scale * right, height / 2 - scale * (cp * c - sp * -deep)];
      };
      this.axes(pen, place, size);
      const span = this.high[2] - this.low[2] || 1;
      for (let i = 0; i + 3 < this.points.length; i += 4) {
        const [u, v] = place(this.points[i], this.points[i + 1], this.points[i + 2]);
        const h = Math.max(0, Math.min(1, (this.points[i + 2] - this.low[2]) / span));
        pen.fillStyle = `hsl(${220 - 170 * h} 75% ${50 + 15 * h}%)`;
        pen.fillRect(u - 1, v - 1, 2, 2);
      }
      pen.fillStyle = "#dfe5ea";
      pen.font = "11px sans-serif";
      const count = this.points.length / 4;
      pen.fillText(`${count} points   z ${this.low[2].toFixed(2)} .. ${this.high[2].toFixed(2)} m`, 6, height - 6);
    },
    axes(pen, place, size) {
      const start = this.low;
      const length = size / 6;
      pen.font = "10px sans-serif";
      ["x", "y", "z"].forEach((name, axis) => {
        const end = start.map((v, i) => v + (i === axis ? length : 0));
        pen.strokeStyle = pen.fillStyle = "#8b97a1";
        pen.beginPath();
        pen.moveTo(...place(...start));
        pen.lineTo(...place(...end));
        pen.stroke();
        pen.fillText(name, ...place(...end));
      });
    },
  },
};
