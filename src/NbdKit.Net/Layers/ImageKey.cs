namespace NbdKit.Layers;

/// <summary>Who may share an image.</summary>
/// <param name="ExportName">The export of the layer below that is the image.</param>
/// <param name="IsTls">Whether the client is encrypted: what is for such clients never reaches others.</param>
/// <param name="ReadOnly">Whether the image is opened read-only.</param>
internal readonly record struct ImageKey(string ExportName, bool IsTls, bool ReadOnly);
