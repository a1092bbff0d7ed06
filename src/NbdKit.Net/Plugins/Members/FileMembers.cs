namespace NbdKit.Plugins.Members;

/// <summary>Members of configuration by name: a file for each.</summary>
internal static class FileMembers
{
    public static IReadOnlyList<NbdBackend> Of(NbdParameters parameters)
        => [.. parameters.Texts("file").Select(path => NbdBackend.Compose(new FilePlugin { Path = path }))];
}
