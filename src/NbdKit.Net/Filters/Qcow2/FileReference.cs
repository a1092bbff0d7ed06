namespace NbdKit.Filters.Qcow2;

/// <summary>Names of other files in images, as QEMU reads them.</summary>
internal static class FileReference
{
    /// <summary>A relative name is relative to the folder of the image that has it, so that it becomes relative to the first one.</summary>
    /// <param name="from">The name of the image, or null for the first one.</param>
    /// <param name="name">The name in it.</param>
    public static string Resolve(string? from, string name)
    {
        if (from is null || name.StartsWith('/') || HasProtocol(name) || HasProtocol(from))
        {
            return name;
        }
        int slash = from.LastIndexOf('/');
        return slash < 0 ? name : string.Concat(from.AsSpan(0, slash + 1), name);
    }

    /// <summary>Whether a name is that of a block driver, such as <c>nbd://…</c> or <c>json:…</c>, and no path.</summary>
    public static bool HasProtocol(string name)
        => name.IndexOf(':', StringComparison.Ordinal) is >= 0 and var colon
            && name.IndexOf('/', StringComparison.Ordinal) is var slash && (slash < 0 || colon < slash);
}
