namespace NbdKit.Plugins.Images;

/// <summary>A change of an image that its log has, of whole sectors of 4 KiB.</summary>
/// <param name="Start">First byte.</param>
/// <param name="End">The byte after the last one.</param>
/// <param name="Data">What is there now: one sector; null for zeroes, any number of sectors.</param>
internal readonly record struct VhdxChange(long Start, long End, byte[]? Data);
