// The plant at a glance: what is laid out once, then values; grey while all is well.
export default {
  template: `<div class="mimic">
    <section v-for="group in groups" class="unit" :class="{flows: group.flows}">
      <h3>{{ group.title }}</h3>
      <div class="cells">
        <button v-for="cell in group.cells" class="cell" :class="now[cell.name]?.[2]" :title="cell.title"
                :aria-label="spoken(cell)" @click="$emit('pick', { name: cell.name })">
          <span class="tag">{{ cell.label }}</span>
          <span class="val">{{ now[cell.name]?.[0] ?? "-" }} <small>{{ cell.unit }}</small></span>
          <i class="bar" v-if="now[cell.name]?.[1] != null"><b :style="{ left: now[cell.name][1] + '%' }"></b></i>
        </button>
        <span class="more" v-if="group.more">and {{ group.more }} more</span>
      </div>
    </section>
  </div>`,
  data() {
    return { groups: [], now: {} };
  },
  mounted() {
    this.$emit("ready");
  },
  methods: {
    lay(groups, now) {
      this.groups = groups;
      this.now = now;
    },
    change(now) {
      Object.assign(this.now, now);
    },
    spoken(cell) {
      const [text, , level] = this.now[cell.name] ?? ["no value", null, ""];
      return `${cell.title}: ${text} ${cell.unit} ${level}`;
    },
  },
};
