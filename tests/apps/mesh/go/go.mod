module mesh

go 1.21
