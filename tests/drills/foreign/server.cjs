// The pasteuriser on OPC UA by node-opcua: `node server.cjs UA_PORT RTSP_PORT FAULT_PORT SEED [CODEC]`, NODE_PATH where node-opcua is.
const { spawn } = require("child_process");
const readline = require("readline");
const path = require("path");
const ua = require("node-opcua");

const [uaPort, rtspPort, faultPort, seed, codec] = process.argv.slice(2);
const plant = spawn("/usr/bin/python3", [path.join(__dirname, "servers.py"), rtspPort, faultPort, seed, codec || "aac"], {
  stdio: ["ignore", "pipe", "inherit"],
});
plant.on("exit", () => process.exit(1));
const UNITS = { P1: "percent", MQH: "cubic_meter_per_hour", CEL: "degree_celsius", BAR: "bar", MBR: "millibar", RPM: "revolutions_per_minute", AMP: "ampere", MTQ: "cubic_meter" };
const SHORT = { P1: "%", MQH: "m³/h", CEL: "°C", BAR: "bar", MBR: "mbar", RPM: "r/min", AMP: "A", MTQ: "m³" };

const unitOf = (code) => ua.makeEUInformation(code, SHORT[code], UNITS[code]);

async function main() {
  const server = new ua.OPCUAServer({
    port: Number(uaPort), resourcePath: "/laiterie", buildInfo: { productName: "Laiterie", manufacturerName: "ACME", productUri: "urn:acme:laiterie" },
    serverInfo: { applicationUri: "urn:laiterie:atelier4" },
    serverCertificateManager: new ua.OPCUACertificateManager({ automaticallyAcceptUnknownCertificate: true, rootFolder: path.join(process.env.PKI || "/tmp", "laiterie-pki") }),
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.registerNamespace("urn:acme:laiterie:4");
  const variables = {};
  const folders = { "": space.rootFolder.objects };
  function folder(name) {
    if (!(name in folders)) {
      const cut = name.lastIndexOf("/");
      folders[name] = own.addFolder(folder(cut < 0 ? "" : name.slice(0, cut)), { browseName: name.slice(cut + 1), nodeId: "s=" + name });
    }
    return folders[name];
  }
  let tick = 0;
  const lines = readline.createInterface({ input: plant.stdout });
  lines.on("line", (line) => {
    const said = JSON.parse(line);
    if (tick++ === 0) {
      for (const [key, tag] of Object.entries(said)) {
        const { folder: place, name, type, unit, low, high, description, writable, period_s: period } = tag;
        const where = folder(place);
        const options = {
          componentOf: where, browseName: name, nodeId: "s=" + place + "." + name, dataType: type, description,
          accessLevel: writable ? "CurrentRead | CurrentWrite" : "CurrentRead", userAccessLevel: writable ? "CurrentRead | CurrentWrite" : "CurrentRead",
          minimumSamplingInterval: 100,
        };
        const node = low === null || unit === null ? own.addVariable(options)
          : own.addAnalogDataItem({ ...options, engineeringUnitsRange: { low, high }, engineeringUnits: unitOf(unit) });
        if (unit !== null && low === null)
          own.addVariable({ propertyOf: node, browseName: { name: "EngineeringUnits", namespaceIndex: 0 }, dataType: "EUInformation",
            value: { dataType: "ExtensionObject", value: unitOf(unit) } });
        variables[key] = { node, type: ua.DataType[type], every: Math.max(1, Math.round(period * 10)) };
      }
      return;
    }
    const bad = said.faults.bad_quality, ahead = said.faults.clock_1h ? 3600_000 * said.faults.clock_1h : 0;
    for (const [key, { node, type, every }] of Object.entries(variables)) {
      if (tick % every) continue;
      const status = said[key] === null ? ua.StatusCodes.BadNotConnected
        : bad && key === "dp" ? ua.StatusCodes.BadSensorFailure : ua.StatusCodes.Good;
      const value = said[key] === null ? (type === ua.DataType.String ? "" : 0) : said[key];
      node.setValueFromSource({ dataType: type, value }, status, new Date(Date.now() + ahead));
    }
  });
  const ready = setInterval(async () => {
    if (!tick) return;
    clearInterval(ready);
    await server.start();
    console.log("serving", server.getEndpointUrl());
  }, 100);
  for (const name of ["SIGINT", "SIGTERM"]) process.on(name, () => { plant.kill(); process.exit(0); });
}
main().catch((reason) => { console.error(reason); plant.kill(); process.exit(1); });
