namespace NbdKit.Layers;

/// <summary>The data calls of a layer.</summary>
internal enum LayerOperation
{
    Read,
    ReadSparse,
    Write,
    Flush,
    Trim,
    Zero,
    Cache,
    Extents,
}
