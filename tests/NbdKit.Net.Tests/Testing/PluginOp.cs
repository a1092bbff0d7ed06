namespace NbdKit.Tests.Testing;

/// <summary>The data calls of a plugin.</summary>
public enum PluginOp
{
    Read,
    Write,
    Flush,
    Trim,
    Zero,
    Cache,
    Extents,
}
