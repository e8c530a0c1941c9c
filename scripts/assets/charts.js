// The charts of the report: those parts of Apache ECharts that it uses, as window.echarts.
import { BarChart, BoxplotChart, CustomChart, ScatterChart } from "echarts/charts";
import { DataZoomComponent, GridComponent, MarkLineComponent, TooltipComponent } from "echarts/components";
import * as echarts from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";

echarts.use([
  BarChart,
  BoxplotChart,
  CustomChart,
  ScatterChart,
  DataZoomComponent,
  GridComponent,
  MarkLineComponent,
  TooltipComponent,
  CanvasRenderer,
]);

// Not a copy of the module's own object: esbuild keeps of that only what is named here.
const { connect, disconnect, dispose, format, getInstanceByDom, graphic, init, number, registerTheme, time, version } =
  echarts;
window.echarts = {
  connect, disconnect, dispose, format, getInstanceByDom, graphic, init, number, registerTheme, time, version,
};
