#include "actors/metrics.hpp"

#include <map>
#include <sstream>

#include <nlohmann/json.hpp>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace qs::actors {
namespace {

using nlohmann::json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

struct collection {
  std::vector<MetricFamily> families;

  void gauge(const std::string& name, const std::string& help, double value,
             const std::vector<ClientMetric::Label>& labels = {},
             MetricType type = MetricType::Gauge) {
    MetricFamily* family = nullptr;
    for (auto& f : families)
      if (f.name == name) family = &f;
    if (family == nullptr) {
      families.push_back({name, help, type, {}});
      family = &families.back();
    }
    ClientMetric m;
    m.label = labels;
    m.gauge.value = value;
    m.counter.value = value;
    family->metric.push_back(m);
  }
};

double number(const json& object, const char* key) {
  auto found = object.find(key);
  if (found == object.end()) return 0;
  if (found->is_boolean()) return found->get<bool>() ? 1 : 0;
  return found->is_number() ? found->get<double>() : 0;
}

void volume_metrics(collection& out, const json& v) {
  static const std::map<std::string, std::string> gauges{
      {"usable_bytes", "bytes the volume can hold"},
      {"used_bytes", "stored bytes of live frames"},
      {"bytes_at_risk", "acknowledged bytes that are not confirmed on all their nodes yet"},
      {"redundancy_left_min", "least confirmed shards on live nodes, minus k"},
      {"segments", "segments"},
      {"segments_in_flight", "segments sent and not yet safe"},
      {"rebuild_pending", "segments with something to rebuild or move"},
      {"log_bytes", "bytes in the local log"},
      {"log_limit_bytes", "limit of the local log"},
      {"cache_disk_bytes", "ciphertext in the read cache"},
      {"read_only", "1 when corruption was found"},
      {"log_full", "1 when writers get ENOSPC"}};
  for (const auto& [key, help] : gauges)
    out.gauge("qs_volume_" + key, help, number(v, key.c_str()));
  out.gauge("qs_volume_node_read_bytes_total", "shard bytes received from nodes",
            number(v, "node_read_bytes"), {}, MetricType::Counter);
  out.gauge("qs_volume_decoded_bytes_total", "payload bytes reconstructed from parity",
            number(v, "decoded_bytes"), {}, MetricType::Counter);
}

} // namespace

std::string metrics_text(const std::string& status_document) {
  collection out;
  auto s = json::parse(status_document, nullptr, false);
  auto up = s.is_object() && s.contains("volume");
  out.gauge("qs_up", "1 while the engine answers", up ? 1 : 0);
  if (up) {
    volume_metrics(out, s["volume"]);
    out.gauge("qs_mounted", "1 while the volume is mounted", number(s["mount"], "mounted"));
    out.gauge("qs_generation", "generation of the accepted spec", number(s, "generation"));
    for (const auto& c : s["conditions"])
      for (const auto* state : {"True", "False", "Unknown"})
        out.gauge("qs_condition", "1 for the condition's present status",
                  c["status"] == state ? 1 : 0,
                  {{"type", c["type"].get<std::string>()}, {"status", state}});
    for (const auto& n : s["nodes"]) {
      std::vector<ClientMetric::Label> labels{{"node", n["id"].get<std::string>()},
                                              {"host", n["host"].get<std::string>()},
                                              {"farm", n["farm"].get<std::string>()},
                                              {"country", n["country"].get<std::string>()}};
      out.gauge("qs_node_ready", "1 while the node is ready", n["state"] == "ready" ? 1 : 0,
                labels);
      out.gauge("qs_node_used_bytes", "bytes the node holds for us", number(n, "used_bytes"),
                labels);
      out.gauge("qs_node_size_bytes", "the node's quota", number(n, "size"), labels);
    }
    auto decimal = [&](const char* key) {
      return std::strtod(s["wallet"][key].get<std::string>().c_str(), nullptr);
    };
    out.gauge("qs_wallet_balance_tft", "balance of the wallet", decimal("balance"));
    out.gauge("qs_wallet_burn_tft_per_month", "what all nodes of this wallet cost",
              decimal("per_month"));
  }
  std::ostringstream text;
  prometheus::TextSerializer{}.Serialize(text, out.families);
  return text.str();
}

std::string status_page() {
  return R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>qs</title><style>
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884}
.ok{color:#2a7d2a}.bad{color:#b3261e}.dim{opacity:.7}.bar{height:.6rem;background:#8883;border-radius:.3rem}.bar i{display:block;height:100%;background:#3b7dd8;border-radius:.3rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1rem}.cards div{border:1px solid #8884;border-radius:.5rem;padding:.6rem}.big{font-size:1.3rem}
</style></head><body><h1 id="title">qs</h1><div class="cards" id="cards"></div><h2>Conditions</h2><table id="conditions"></table>
<h2>Nodes</h2><table id="nodes"></table><h2>Events</h2><table id="events"></table>
<script>
const size=b=>{const u=['B','KiB','MiB','GiB','TiB'];let i=0;while(b>=1024&&i<4){b/=1024;i++}return b.toFixed(i?1:0)+' '+u[i]};
const cell=(r,t,c)=>{const d=r.insertCell();d.textContent=t??'';if(c)d.className=c};
const card=(k,v,c)=>{const d=document.createElement('div'),s=document.createElement('div'),b=document.createElement('div');s.textContent=k;s.className='dim';b.textContent=v;b.className='big '+(c||'');d.append(s,b);return d};
let last=0;
async function show(){try{const s=await(await fetch('v1/status')).json(),v=s.volume;
document.getElementById('title').textContent=s.name+': '+s.state;document.title=s.name+': '+s.state;
document.getElementById('cards').replaceChildren(card('used of usable',size(v.used_bytes)+' of '+size(v.usable_bytes)),
card('more nodes may be lost',v.redundancy_left_min??'-',v.redundancy_left_min>0?'ok':'bad'),card('at risk',size(v.bytes_at_risk),v.bytes_at_risk?'bad':'ok'),
card('wallet',s.wallet.balance+' TFT'),card('runway',s.wallet.runway_days==null?'-':Math.floor(s.wallet.runway_days)+' days'),card('mount',s.mount.mounted?s.mount.path:'not mounted',s.mount.mounted?'ok':'bad'));
const c=document.getElementById('conditions');c.replaceChildren();for(const x of s.conditions){const r=c.insertRow();cell(r,x.type);cell(r,x.status);cell(r,x.reason);cell(r,x.message)}
const n=document.getElementById('nodes');n.replaceChildren();for(const x of s.nodes){const r=n.insertRow();cell(r,x.id);cell(r,x.state,x.state=='ready'?'ok':'bad');cell(r,x.host);cell(r,x.farm);cell(r,x.country);cell(r,size(x.used_bytes)+' of '+size(x.size))}
const t=await(await fetch('v1/events?after='+last)).text(),e=document.getElementById('events');
for(const l of t.trim().split('\n').filter(Boolean)){const x=JSON.parse(l);last=x.number;const r=e.insertRow(0);cell(r,x.at);cell(r,x.kind);cell(r,x.subject);cell(r,x.message)}
while(e.rows.length>50)e.deleteRow(-1)}catch(e){document.getElementById('title').textContent='qs: the engine does not answer'}}
show();setInterval(show,2000);
</script></body></html>
)html";
}

} // namespace qs::actors
