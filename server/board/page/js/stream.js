// The one stream everything comes from: /api/events. It is opened again when it
// ends, as it does at an upgrade, and then all of it comes anew.

const patience = 7000; // without a word for so long, the contact is lost

export function listen(handlers, contact) {
  let source, timer, heard = 0;
  const lost = () => contact(false, heard);
  const word = () => {
    heard = Date.now();
    clearTimeout(timer);
    timer = setTimeout(lost, patience);
  };
  const open = () => {
    source = new EventSource("/api/events");
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (e) => {
        word();
        if (name === "hello") contact(true, heard);
        handle(JSON.parse(e.data));
      });
    }
    source.onerror = async () => {
      source.close();
      setTimeout(open, 1000);
      const answer = await fetch("/api/status").catch(() => null);
      if (answer && answer.status === 401) location.assign("/login");
    };
  };
  timer = setTimeout(lost, patience);
  open();
}
