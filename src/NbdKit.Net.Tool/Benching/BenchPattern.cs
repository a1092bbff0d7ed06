namespace NbdKit.Tool.Benching;

/// <summary>Which requests a benchmark makes.</summary>
internal enum BenchPattern
{
    Read,
    Write,
    RandomRead,
    RandomWrite,
}
