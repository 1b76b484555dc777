package bench

import (
	"fmt"
	"math"
	"strings"
)

// series is one line of a plot.
type series struct {
	name   string
	xs, ys []float64
}

func (s *series) add(x, y float64) { s.xs, s.ys = append(s.xs, x), append(s.ys, y) }

func (s *series) extremes() (least, most float64) {
	least = math.Inf(1)
	for _, y := range s.ys {
		least, most = min(least, y), max(most, y)
	}
	return least, most
}

// plot is a picture of lines over a linear scale from zero.
type plot struct {
	file, title, x, y string
	lines             []series
}

// colours that stay apart for those who see few.
var colours = [...]string{"#0072b2", "#d55e00", "#009e73", "#cc79a7"} //nolint:gochecknoglobals // read-only table

func (p *plot) svg() []byte {
	const width, height, left, top = 640, 260, 60, 36
	mostX, mostY := 0.0, 0.0
	for i := range p.lines {
		for k, x := range p.lines[i].xs {
			mostX, mostY = max(mostX, x), max(mostY, p.lines[i].ys[k])
		}
	}
	stepX, stepY := step(mostX), step(mostY)
	mostX, mostY = math.Ceil(mostX/stepX)*stepX, math.Ceil(mostY/stepY)*stepY
	at := func(x, y float64) (float64, float64) { return left + x/mostX*width, top + height - y/mostY*height }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", left+width+40, top+height+44)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="%d" y="20" font-weight="bold">%s</text>`+"\n", left, p.title)
	for y := 0.0; y <= mostY*1.001; y += stepY {
		_, py := at(0, y)
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left, left+width, py, py, left-6, py+4, y)
	}
	for x := 0.0; x <= mostX*1.001; x += stepX {
		px, py := at(x, 0)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%g</text>`+"\n", px, py+18, x)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><text x="8" y="%d">%s</text>`+"\n", left+width, top+height+36, p.x, top-6, p.y)
	for i := range p.lines {
		s, colour := &p.lines[i], colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
		for k, x := range s.xs {
			px, py := at(x, s.ys[k])
			fmt.Fprintf(&b, "%.1f,%.1f ", px, py)
		}
		fmt.Fprintf(&b, `"/><text x="%d" y="%d" fill="%s">%s</text>`+"\n", left+10+i*160, top+height+36, colour, s.name)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// step returns a round distance of the lines of a scale.
func step(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most)))
	for _, f := range []float64{.2, .5, 1, 2} {
		if most/(power*f) <= 6 {
			return power * f
		}
	}
	return power * 5
}
