/* A browser starts no Worker for a page that is a file; here its script runs in a hidden frame, so that a site that was
   copied, or that no server holds, can be searched as well. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = this.inside = frame.contentWindow;
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      inside.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => new Promise(done => {
        const script = Object.assign(inside.document.createElement("script"), {src: new URL(one, location), onload: done});
        inside.document.body.append(script);
      })), Promise.resolve());
      inside.importScripts(url).then(() => {
        const kept = this.waiting;
        this.waiting = null;
        kept.forEach(data => this.postMessage(data));
      });
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.inside.dispatchEvent(new MessageEvent("message", {data}));
    }
    terminate() { this.inside.frameElement.remove(); }
  };
