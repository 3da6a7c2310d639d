// The page's own heartbeat: where the server says nothing, the browser says so by itself, and since when.
const LATE_MS = 3500;
const LOOK_MS = 500;

export default {
  template: `<div v-if="lost" class="banner" role="alert">NO DATA: this page has lost its server since {{ since }}; all it shows is old</div>`,
  data() {
    return { lost: false, since: "" };
  },
  mounted() {
    this.heard = Date.now();
    this.timer = setInterval(() => this.look(), LOOK_MS);
  },
  unmounted() {
    clearInterval(this.timer);
  },
  methods: {
    beat() {
      this.heard = Date.now();
      this.lost = false;
      document.body.classList.remove("lost");
    },
    look() {
      const gone = this.there && !window.socket?.connected;
      this.there = Boolean(window.socket?.connected);
      if (gone || Date.now() - this.heard > LATE_MS) this.drop();
    },
    drop() {
      if (this.lost) return;
      this.since = new Date(this.heard).toLocaleTimeString("en-GB");
      this.lost = true;
      document.body.classList.add("lost");
    },
  },
};
