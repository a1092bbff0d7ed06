namespace NbdKit.Tests.Testing;

/// <summary>One callback that a recording layer received.</summary>
/// <param name="Layer">The layer's name.</param>
/// <param name="Callback">The callback, such as <c>open</c> or <c>read</c>.</param>
/// <param name="Context">The number of the layer's context, from 1 in the order of opens; 0 for calls that have none.</param>
internal sealed record RecordedCall(string Layer, string Callback, int Context = 0)
{
    public string ExportName { get; init; } = "";

    public bool ReadOnly { get; init; }

    public long Offset { get; init; }

    public long Length { get; init; }

    public RequestFlags Flags { get; init; }

    /// <summary>Whether this entry says that the callback of the same name has failed.</summary>
    public bool Failed { get; init; }

    /// <summary>Such as <c>plugin#1.read</c>, or <c>plugin.start</c>, with " failed" if it did.</summary>
    public override string ToString()
        => $"{Layer}{(Context > 0 ? $"#{Context}" : "")}.{Callback}{(Failed ? " failed" : "")}";
}
