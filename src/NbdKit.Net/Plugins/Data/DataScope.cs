namespace NbdKit.Plugins.Data;

/// <summary>The names that are known at a place: an inner scope sees those of the outer ones.</summary>
internal sealed class DataScope(DataScope? outer)
{
    private readonly Dictionary<string, DataPiece> _names = new(StringComparer.Ordinal);

    public void Set(string name, DataPiece piece) => _names[name] = piece;

    public DataPiece? Find(string name) => _names.TryGetValue(name, out DataPiece? piece) ? piece : outer?.Find(name);
}
