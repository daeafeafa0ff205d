// A grid simulator in another language: plain Node.js, no packages, mosaik's API as JSON over TCP.
//
//     cosim run ieee33 --until 6h --use 'grid=cmd: node examples/plug_grid.js %(addr)s'
//
// One pool feeds all buses: hydro first, up to its capacity, gas for the rest. Its carbon intensity is the mean of
// what feeds it. The bus starts this program and passes the address to connect to; each message is its length (4 bytes,
// big endian) and a JSON array [type, id, content], type 0 a request, 1 its answer, 2 its failure.

'use strict';
const net = require('net');

const META = {
  api_version: '3.0',
  type: 'time-based',
  models: {
    Bus: { public: true, params: [], attrs: ['p_load_kw', 'q_load_kvar', 'nci_kg_per_kwh'] },
    Grid: { public: true, params: [], attrs: ['p_load_total_kw'] },
  },
};

class Pool {
  init(sid, options) {
    this.stepSize = options.step_size ?? 15; // in steps of the bus: minutes in the study
    this.hydro = { p_max_kw: positive('hydro_kw', options.hydro_kw ?? 2000), kg_per_kwh: 0.02 };
    this.gas_kg_per_kwh = positive('gas_kg_per_kwh', options.gas_kg_per_kwh ?? 0.45);
    this.buses = [];
    return META;
  }

  create(num, model) {
    const names = model === 'Bus' ? Array.from({ length: num }, (_, k) => `bus${this.buses.length + k}`) : ['grid'];
    if (model === 'Bus') this.buses.push(...names);
    return names.map((eid) => ({ eid, type: model }));
  }

  step(time, inputs) {
    // inputs: entity -> attribute -> source -> value. Several loads meet at a bus; sorted, so that sums do not depend on
    // the order in which they came.
    let total = 0;
    for (const bus of this.buses) {
      const sources = inputs[bus]?.p_load_kw ?? {};
      for (const source of Object.keys(sources).sort()) total += sources[source];
    }
    const hydro = Math.min(total, this.hydro.p_max_kw);
    const emission = hydro * this.hydro.kg_per_kwh + (total - hydro) * this.gas_kg_per_kwh;
    this.total = total;
    this.nci = total > 0 ? emission / total : this.hydro.kg_per_kwh;
    return time + this.stepSize;
  }

  getData(wanted) {
    const value = { p_load_total_kw: this.total, nci_kg_per_kwh: this.nci };
    return Object.fromEntries(Object.entries(wanted).map(([eid, attrs]) => [
      eid, Object.fromEntries(attrs.map((attr) => [attr, value[attr]]))]));
  }
}

function positive(name, value) {
  if (!(typeof value === 'number' && value > 0)) throw new RangeError(`${name} = ${value} must be a number > 0`);
  return value;
}

const pool = new Pool();

function answer([method, args, kwargs]) {
  switch (method) {
    case 'init': return pool.init(args[0], kwargs);
    case 'create': return pool.create(...args);
    case 'setup_done': return null;
    case 'step': return pool.step(...args);
    case 'get_data': return pool.getData(...args);
    default: throw new Error(`no method ${method}`);
  }
}

function send(socket, message) {
  const body = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  socket.write(Buffer.concat([head, body]));
}

function take(socket, [, id, content]) {
  if (content[0] === 'stop') return socket.end();
  try {
    return send(socket, [1, id, answer(content)]);
  } catch (err) {
    return send(socket, [2, id, [err.name, err.message, err.stack]]);
  }
}

if (!process.argv[2]) {
  console.error('usage: node plug_grid.js HOST:PORT (the bus gives it as %(addr)s)');
  process.exit(2);
}
const [host, port] = process.argv[2].split(':');
const socket = net.connect(Number(port), host);
let pending = Buffer.alloc(0);
socket.on('data', (chunk) => {
  pending = Buffer.concat([pending, chunk]);
  while (pending.length >= 4 && pending.length >= 4 + pending.readUInt32BE(0)) {
    const end = 4 + pending.readUInt32BE(0);
    const message = JSON.parse(pending.subarray(4, end).toString('utf8'));
    pending = pending.subarray(end);
    take(socket, message);
  }
});
socket.on('error', (err) => { console.error(`plug_grid.js: ${err.message}`); process.exit(3); });
