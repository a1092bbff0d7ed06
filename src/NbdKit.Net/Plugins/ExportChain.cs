using NbdKit.Protocol;

namespace NbdKit.Plugins;

/// <summary>One export of an <see cref="ExportsPlugin"/>: the chain behind it, and how it is shown and opened.</summary>
public sealed record ExportChain
{
    /// <summary>Creates an export.</summary>
    /// <param name="chain">The chain that serves it: the outermost layer. Several exports may share one.</param>
    /// <exception cref="ArgumentNullException">The chain is null.</exception>
    public ExportChain(NbdBackend chain)
    {
        ArgumentNullException.ThrowIfNull(chain);
        Chain = chain;
    }

    /// <summary>The chain that serves the export.</summary>
    public NbdBackend Chain { get; }

    /// <summary>
    /// What the export is, for people, in the list of exports and when it is opened: at most 4,096 bytes of UTF-8. Null by
    /// default: nothing in the list, and what the chain says when it is opened.
    /// </summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string? Description
    {
        get;
        init
        {
            if (value is not null)
            {
                WireString.Check(value, "export description");
            }
            field = value;
        }
    }

    /// <summary>The export of the chain to open. "" by default: its default export.</summary>
    /// <exception cref="ArgumentException">The value breaks the protocol's rules for strings.</exception>
    public string ExportName
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value);
            WireString.Check(value, "export name");
            field = value;
        }
    } = "";

    /// <summary>Whether the chain is always opened read-only. False by default.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>
    /// Only for what <see cref="ExportsPlugin.Resolver"/> returns: whether the chain, once it was opened, runs until the
    /// plugin stops. False by default: it ends when the last context of it closes, unless somebody else uses it too.
    /// </summary>
    public bool KeepRunning { get; init; }
}
