// Small curves of what M expects.

export interface Curve {
  canvas: HTMLCanvasElement;
  /** The range that is always shown. */
  low: number;
  high: number;
  /** Of the colour, a custom property of the style sheet. */
  colour: string;
  /** Whether the curve is filled down to zero. */
  fill: boolean;
}

/** Draws values, the newest at the right; `room` is how many fit. A second, fainter line goes behind the first. */
export function plot(curve: Curve, values: number[], room: number, behind: number[] = []): void {
  const { canvas } = curve;
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d")!;
  const style = getComputedStyle(canvas);
  const all = [...values, ...behind].filter(Number.isFinite);
  const low = Math.min(curve.low, ...all), high = Math.max(curve.high, ...all);
  const y = (value: number) => height - ratio - ((value - low) / (high - low || 1)) * (height - 2 * ratio);
  context.clearRect(0, 0, width, height);
  context.lineWidth = 1;
  context.strokeStyle = style.getPropertyValue("--line");
  context.beginPath();
  context.moveTo(0, Math.round(y(0)) + 0.5);
  context.lineTo(width, Math.round(y(0)) + 0.5);
  context.stroke();
  const line = (points: number[], colour: string, thick: number, fill: boolean) => {
    if (points.length < 2) return;
    const x = (i: number) => width - ((points.length - 1 - i) / (room - 1)) * width;
    context.beginPath();
    points.forEach((value, i) => Number.isFinite(value) && context.lineTo(x(i), y(value)));
    context.strokeStyle = style.getPropertyValue(colour);
    context.lineWidth = thick * ratio;
    context.lineJoin = "round";
    context.stroke();
    if (!fill) return;
    context.lineTo(x(points.length - 1), y(0));
    context.lineTo(x(0), y(0));
    context.globalAlpha = 0.18;
    context.fillStyle = style.getPropertyValue(colour);
    context.fill();
    context.globalAlpha = 1;
  };
  line(behind, "--world", 1, false);
  line(values, curve.colour, 1.5, curve.fill);
}
