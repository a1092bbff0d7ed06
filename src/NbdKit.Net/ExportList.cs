using System.Collections;
using NbdKit.Protocol;

namespace NbdKit;

/// <summary>The exports that a layer lists. A filter that rewrites the list below passes its own list to the next layer.</summary>
/// <remarks>Not safe for use by several threads at once.</remarks>
public sealed class ExportList : IReadOnlyList<NbdExport>
{
    /// <summary>The largest number of exports in one list, as in nbdkit.</summary>
    public const int MaximumCount = 10_000;

    private readonly List<NbdExport> _exports = [];

    /// <summary>The number of exports listed.</summary>
    public int Count => _exports.Count;

    /// <summary>Whether <see cref="AddDefault"/> was called; resolved by the layer's own default export.</summary>
    internal bool WantsDefault { get; set; }

    /// <summary>The export at a position in the list.</summary>
    /// <param name="index">Position, from 0.</param>
    public NbdExport this[int index] => _exports[index];

    /// <summary>Adds an export.</summary>
    /// <param name="name">Its name: at most 4,096 bytes of UTF-8, without NUL.</param>
    /// <param name="description">What it is, under the same rules, or null.</param>
    /// <exception cref="ArgumentException">A string breaks the protocol's rules.</exception>
    /// <exception cref="InvalidOperationException">The list already has <see cref="MaximumCount"/> exports.</exception>
    public void Add(string name, string? description = null)
    {
        WireString.Check(name, "export name");
        if (description is not null)
        {
            WireString.Check(description, "export description");
        }
        if (_exports.Count >= MaximumCount)
        {
            throw new InvalidOperationException($"An export list takes at most {MaximumCount} exports.");
        }
        _exports.Add(new NbdExport(name, description));
    }

    /// <summary>Adds the export that a client gets when it asks for "": the layer's default export.</summary>
    public void AddDefault() => WantsDefault = true;

    /// <summary>Enumerates the exports in order.</summary>
    public IEnumerator<NbdExport> GetEnumerator() => _exports.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
