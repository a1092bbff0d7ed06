namespace NbdKit.Layers;

/// <summary>
/// A filter's handle that has nothing to do with some operations: calls go around it. It must keep its next, and its size and
/// capabilities for these operations must be those of the layer below.
/// </summary>
internal interface ITransparentFilter
{
    /// <summary>Whether an operation passes unchanged.</summary>
    bool LeavesAlone(LayerOperation operation);
}
